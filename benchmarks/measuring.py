"""Time and memory of a piece of work, and how they grow with its size."""

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
    """Total time of several pieces of work, without the time between them.

    Attributes:
        wall: seconds.
        cpu: processor seconds of this process and of its ended children.
    """

    wall: float = 0.0
    cpu: float = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Add the time of the block."""
        wall, cpu = time.perf_counter(), cpu_seconds()
        try:
            yield
        finally:
            self.wall += time.perf_counter() - wall
            self.cpu += cpu_seconds() - cpu


def cpu_seconds() -> float:
    """Return the processor time of this process and of its ended children."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def peak_mib() -> float:
    """Return the peak resident memory of this process, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def growth(sizes: Sequence[int], seconds: Sequence[float]) -> list[float]:
    """Return the exponent between neighbouring sizes: 1 is linear, 2 quadratic; NaN if a time is 0."""
    steps = zip(sizes, sizes[1:], seconds, seconds[1:], strict=False)
    return [
        math.log(after / before) / math.log(large / small) if before > 0 and after > 0 else math.nan
        for small, large, before, after in steps
    ]
