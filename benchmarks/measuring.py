"""Seconds and memory of a piece of work, and how they grow with its size."""

from __future__ import annotations

import math
import os
import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Clock:
    """Time that pieces of work took together; what happens between them does not count.

    Attributes:
        wall: seconds.
        cpu: processor seconds of this process and of its children that have ended.
    """

    wall: float = 0.0
    cpu: float = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the block."""
        wall, cpu = time.perf_counter(), cpu_seconds()
        try:
            yield
        finally:
            self.wall += time.perf_counter() - wall
            self.cpu += cpu_seconds() - cpu


def cpu_seconds() -> float:
    """Return the processor time of this process and of its children that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def peak_mib() -> float:
    """Return the largest resident memory that this process had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def growth(sizes: Sequence[int], seconds: Sequence[float]) -> list[float]:
    """Return the exponent between neighbouring sizes: 1 is linear, 2 quadratic; NaN where a time is too short."""
    steps = zip(sizes, sizes[1:], seconds, seconds[1:], strict=False)
    return [
        math.log(after / before) / math.log(large / small) if before > 0 and after > 0 else math.nan
        for small, large, before, after in steps
    ]
