"""Intervals for accuracies and for their paired differences; numpy only, all resampling is seeded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Z_95 = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution: two-sided 95 % intervals."""

_CELLS_PER_CHUNK = 4_000_000


class Interval(NamedTuple):
    """The ends of a 95 % interval, in the unit of the measured quantity (accuracies: shares from 0 to 1)."""

    low: float
    high: float


def wilson_interval(share: float, count: float) -> Interval:
    """Return the Wilson score interval of a share (Wilson 1927), which is within [0, 1] even for shares of 0 and 1.

    `count` is the number of independent observations; 0 gives the whole of [0, 1].

    Raises:
        ValueError: the share is outside [0, 1] or the count is negative.
    """
    if not 0.0 <= share <= 1.0 or count < 0:
        raise ValueError(f"share must be in [0, 1] and count >= 0, got {share!r} and {count!r}")
    if count == 0:
        return Interval(0.0, 1.0)
    z2 = Z_95 * Z_95
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z_95 / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count * count))
    low = 0.0 if share == 0.0 else max(0.0, centre - half)
    high = 1.0 if share == 1.0 else min(1.0, centre + half)
    return Interval(low, high)


def paired_bootstrap(parent: Sequence[float], child: Sequence[float], resamples: int, seed: int) -> Interval:
    """Return the 95 % percentile bootstrap interval of mean(child - parent), resampling whole prompts.

    `parent` and `child` are mean accuracies, from 0 to 1, of the same prompts in the same order, with the same seeds.

    Raises:
        ValueError: the lists have different lengths or are empty, or there are no resamples.
    """
    if len(parent) != len(child) or not len(parent) or resamples < 1:
        raise ValueError(f"need equal, non-empty lists and resamples >= 1: {len(parent)}, {len(child)}, {resamples}")
    gains = np.asarray(child, dtype=np.float64) - np.asarray(parent, dtype=np.float64)
    generator, count = np.random.default_rng(seed), len(gains)
    chunk = max(1, _CELLS_PER_CHUNK // count)  # memory does not grow with the number of resamples
    means = [
        gains[generator.integers(0, count, size=(min(chunk, resamples - start), count))].mean(axis=1)
        for start in range(0, resamples, chunk)
    ]
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return Interval(float(low), float(high))
