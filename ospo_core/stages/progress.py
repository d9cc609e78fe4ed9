"""Progress events: stages and the training process emit them, the command line and the Prefect UI show them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from ospo_core.schema import StageName


@dataclass(frozen=True)
class Event:
    """Progress of a stage.

    Args:
        kind: `started` (there are `total` units so far), `advanced` (`done` of `total`), `finished`, `cached`.
        stage: which stage.
        done: units done so far: shards, or training steps.
        total: number of units.
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
    """Call `listener` with every event of this process while the block runs; it must be fast and thread-safe."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def emit(event: Event) -> None:
    """Send an event to every listener."""
    for listener in tuple(_listeners):
        listener(event)
