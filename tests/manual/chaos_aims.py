"""When to kill: times relative to the files of an undisturbed round, spread evenly over its stages."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from ospo_core.artifacts.storage import Storage
from ospo_core.schema import StageName

Victim = Literal["all", "runner", "training", "worker"]

CLOSING = "closing"
"""What follows the last stage: promotion and report."""

PHASES = (*(stage.value for stage in StageName), CLOSING)
TRAINING_MARKS = (
    ("training/*/job.json", 4.0),
    ("training/*/metrics.jsonl", 0.5),
    ("training/*/checkpoints/step-*", 1.0),
    ("training/*/adapter/*", 0.3),
    ("training/*/result.json", 0.3),
)
"""Files of the training process in the scratch folder, in order, with the seconds until about the next one."""

_VICTIMS: tuple[Victim, ...] = ("all", "runner", "worker")
_TRAINING_ALONE: tuple[Victim, ...] = ("training",) * 6
_LONGEST_DELAY = 6.0
_MORE_TRAININGS = 2


@dataclass(frozen=True)
class Aim:
    """One planned kill.

    Args:
        phase: the stage it is meant to hit.
        victim: `all` is the round's process and the training process together; `worker` is a worker and its flow run.
        order: position in the round, for sorting the aims of one trial.
        mark: file whose appearance starts the delay: a key of the storage, or a pattern below the scratch folder.
        in_scratch: whether the mark is in the scratch folder.
        delay: seconds after the mark.
    """

    phase: str
    victim: Victim
    order: float
    mark: str
    in_scratch: bool
    delay: float

    def is_due(self, storage: Storage, scratch: Path) -> bool:
        """Return whether the mark exists."""
        if self.in_scratch:
            return next(scratch.glob(self.mark), None) is not None
        return storage.exists(self.mark)


def aims(timeline: list[tuple[str, float]], seed: int) -> Iterator[Aim]:
    """Yield kills endlessly: of every eleven, each phase gets one and the training two more, in random order.

    Args:
        timeline: the files of an undisturbed round and the times they appeared, in seconds, in order.
        seed: of phases, victims, marks and delays.
    """
    draw = random.Random(seed)
    while True:
        phases = (*PHASES, *(StageName.TRAINING.value,) * _MORE_TRAININGS)
        for phase in draw.sample(phases, len(phases)):
            yield _training_aim(draw, timeline) if phase == StageName.TRAINING else _aim(draw, timeline, phase)


def timeline_of(storage: Storage) -> list[tuple[str, float]]:
    """Return the files of a storage and the times they were written (seconds), in order."""
    return sorted(((one.key, one.modified) for one in storage.details("")), key=lambda one: one[1])


def running_phase(storage: Storage) -> str:
    """Return the first stage that has no manifest yet."""
    for stage in StageName:
        if not any(key.endswith("/manifest.json") for key in storage.list(stage.value)):
            return stage.value
    return CLOSING


def _aim(draw: random.Random, timeline: list[tuple[str, float]], phase: str) -> Aim:
    """Return a kill between two consecutive files of a phase."""
    moments = [(name, after - at) for (name, at), (_, after) in pairwise(timeline) if _phase_after(name) == phase]
    name, gap = draw.choice(moments)
    order = [one for one, _ in timeline].index(name)
    victim: Victim = draw.choice(_VICTIMS)
    return Aim(phase, victim, order, name, False, draw.uniform(0.0, min(gap, _LONGEST_DELAY)))


def _training_aim(draw: random.Random, timeline: list[tuple[str, float]]) -> Aim:
    """Return a kill shortly after one of the training process's own files."""
    place = draw.randrange(len(TRAINING_MARKS))
    mark, gap = TRAINING_MARKS[place]
    before = [name for name, _ in timeline if _phase_after(name) == StageName.TRAINING]
    order = [name for name, _ in timeline].index(before[0]) + place / len(TRAINING_MARKS)
    victim: Victim = draw.choice((*_VICTIMS, *_TRAINING_ALONE))
    return Aim(StageName.TRAINING.value, victim, order, mark, True, draw.uniform(0.0, gap))


def _phase_after(name: str) -> str:
    """Return the phase that runs once the file `name` exists."""
    stage, _, rest = name.partition("/")
    if stage == "models":
        return StageName.TRAINING.value if rest != "current.json" else CLOSING
    if stage not in PHASES:
        return ""
    return PHASES[PHASES.index(stage) + 1] if name.endswith("/manifest.json") else stage
