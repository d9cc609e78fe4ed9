"""Who wants to know how far a round is: stages and the training process tell, the command line draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from ospo_core.schema import StageName


@dataclass(frozen=True)
class Event:
    """Something happened to a stage.

    Args:
        kind: `started` (a wave of `total` units is to be done), `advanced` (`done` of `total`), `finished`, `cached`.
        stage: which stage.
        done: units done so far: shards, or training steps.
        total: units in all.
        note: a few words, e.g. the loss.
    """

    kind: Literal["started", "advanced", "finished", "cached"]
    stage: StageName
    done: int = 0
    total: int = 0
    note: str = ""


Listener = Callable[[Event], None]

_listeners: list[Listener] = []


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Call `listener` with every event of this process while the block runs; it must be quick and thread-safe."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def emit(event: Event) -> None:
    """Tell every listener."""
    for listener in tuple(_listeners):
        listener(event)
