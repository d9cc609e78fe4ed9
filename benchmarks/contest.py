"""A and B in turn, several times: by how much is the round's code faster than another way of doing the same?"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.device import memory_changes

Work = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        figure: what is measured, with its unit, on which model.
        against: what it is compared with.
        ratio: by how much ours is better: rates ours to theirs; memory and time theirs to ours; alone: the value.
        low, high: the extreme ratios of single turns.
        goal: the least ratio (or, of a value alone, the largest value) that the project wants; None: none.
        ours, theirs: the medians themselves, in the figure's unit; theirs is None where there is nothing to compare.
        floor_share: share of the machine's limit that ours reaches.
        note: what else there is to know.
    """

    figure: str
    against: str
    ratio: float
    low: float
    high: float
    goal: float | None
    ours: float
    theirs: float | None
    floor_share: float | None = None
    note: str = ""

    @property
    def meets_goal(self) -> bool | None:
        """Whether the goal is reached; None if there is none."""
        if self.goal is None:
            return None
        return self.ratio >= self.goal if self.theirs is not None else self.ours <= self.goal


@dataclass(frozen=True)
class Side:
    """One way of doing the work.

    Attributes:
        work: does it once.
        items: how many items that makes, or a function that says so from what `work` returned.
    """

    work: Work
    items: float | Callable[[object], float]


@dataclass(frozen=True)
class Rival:
    """A way to compare with: its name, the goal for the ratio, and itself."""

    name: str
    goal: float | None
    side: Side


def compete(
    figure: str, ours: Side, rivals: list[Rival], turns: int, floor_seconds: float | None = None, warm: bool = True
) -> list[Row]:
    """Let all do their work in turn, `turns` times; return a row per rival.

    Args:
        figure: name and unit of the rate.
        ours: the round's code.
        rivals: what it is compared with.
        turns: how often each is timed.
        floor_seconds: the least time that our work could take.
        warm: whether there is one turn more, before the others, that does not count.
    """
    sides = [ours, *(rival.side for rival in rivals)]
    rates: list[list[float]] = [[] for _ in sides]
    for turn in range(0 if warm else 1, turns + 1):
        for index, side in enumerate(sides):
            rate = _rate(side)
            if turn:
                rates[index].append(rate)
    mine = statistics.median(rates[0])
    share = None if floor_seconds is None or callable(ours.items) else floor_seconds * mine / ours.items
    rows = []
    for rival, theirs in zip(rivals, rates[1:], strict=True):
        ratios = [own / other for own, other in zip(rates[0], theirs, strict=True)]
        middle = statistics.median(ratios)
        measured = (middle, min(ratios), max(ratios), rival.goal, mine, statistics.median(theirs))
        rows.append(Row(figure, rival.name, *measured, share))
    return rows


def _rate(side: Side) -> float:
    """Return the items per second of one turn."""
    began = time.perf_counter()
    made = side.work()
    seconds = time.perf_counter() - began
    return (side.items(made) if callable(side.items) else side.items) / seconds


def peak_of_tensors(work: Work) -> int:
    """Return by how many bytes the memory of tensors on the CPU grew at its peak while `work` ran, a batch at a time.

    Only the calling thread is profiled, so torch has one: with several, a small model's batches have a thread each.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as observed:
            work()
    finally:
        torch.set_num_threads(threads)
    return max(accumulate(memory_changes(observed, torch.device("cpu"))), default=0)


def compare_memory(figure: str, ours: int, theirs: Mapping[str, tuple[int, float | None]]) -> list[Row]:
    """Return a row per rival in MB, given peaks of tensors in bytes and the goal for the ratio of theirs to ours."""
    return [
        Row(figure, name, peak / ours, peak / ours, peak / ours, goal, ours / 1e6, peak / 1e6)
        for name, (peak, goal) in theirs.items()
    ]


def this_machine() -> str:
    """Say in a few words what was measured on."""
    model = "processor"
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    cores = len(os.sched_getaffinity(0))
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    return f"{cores} cores of {model}, {torch.get_num_threads()} threads, {versions}"
