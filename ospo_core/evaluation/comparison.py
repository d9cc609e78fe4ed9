"""Comparison of several trained models with the model they started from: means over seeds, and intervals of the gain.

The intervals resample both seeds and prompts: a gain must hold for other rounds and for other prompts. With few
seeds the variance between seeds is underestimated, so the accuracy of every seed is reported as well.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ospo_core.evaluation.statistics import Interval
from ospo_core.schema import ALL

Floats = NDArray[np.float64]


class Key(NamedTuple):
    """One evaluated model: arm, seed of its round, guidance scale of the evaluation."""

    arm: str
    seed: int
    guidance: float


@dataclass(frozen=True)
class Verdicts:
    """Results of one model: prompt to share of its samples that are correct, and prompt to category."""

    right: Mapping[str, float]
    category: Mapping[str, str]


@dataclass(frozen=True)
class Gain:
    """One arm in one category (or ALL) at one guidance scale.

    Attributes:
        accuracy: mean over prompts and seeds; by_seed: the same for each seed.
        gain, interval: mean difference from the base at the same guidance, and its 95 % interval.
    """

    arm: str
    guidance: float
    group: str
    accuracy: float
    by_seed: tuple[float, ...]
    gain: float
    interval: Interval


def verdicts(rows: Iterable[Mapping[str, Any]], column: str) -> Verdicts:
    """Collect rows of the table `evaluation`; `column` is `oracle_correct` or `vqa_correct`."""
    samples: dict[str, list[bool]] = defaultdict(list)
    category: dict[str, str] = {}
    for row in rows:
        samples[row["item_id"]].append(bool(row[column]))
        category[row["item_id"]] = row["category"]
    return Verdicts({item: fmean(found) for item, found in samples.items()}, category)


def compare(measured: Mapping[Key, Verdicts], base: str, resamples: int = 2000, seed: int = 0) -> list[Gain]:
    """Return the gains of all arms, in the order of `measured`; the gain of the base itself is 0.

    Raises:
        ValueError: an arm has no base, or was evaluated on other prompts.
    """
    gains: list[Gain] = []
    for arm, guidance in dict.fromkeys((key.arm, key.guidance) for key in measured):
        keys = [key for key in measured if (key.arm, key.guidance) == (arm, guidance)]
        if missing := [key for key in keys if Key(base, key.seed, guidance) not in measured]:
            raise ValueError(f"no base was evaluated for {missing[0]}")
        category = measured[keys[0]].category
        items = sorted(category)
        pairs = [(measured[key].right, measured[Key(base, key.seed, guidance)].right) for key in keys]
        if any(sorted(right) != items for pair in pairs for right in pair):
            raise ValueError("the models were evaluated on different prompts")
        after, before = np.array([[[one[item] for item in items] for one in pair] for pair in pairs]).swapaxes(0, 1)
        for group in (ALL, *sorted(set(category.values()))):
            inside = np.array([group in (ALL, category[item]) for item in items])
            own, gained = after[:, inside], (after - before)[:, inside]
            interval = two_level_interval(gained, resamples, seed)
            by_seed = tuple(float(value) for value in own.mean(axis=1))
            gains.append(Gain(arm, guidance, group, float(own.mean()), by_seed, float(gained.mean()), interval))
    return gains


def two_level_interval(gains: Floats, resamples: int, seed: int) -> Interval:
    """Return the 95 % percentile bootstrap interval of the mean of `gains` [seeds, prompts], resampling both.

    Raises:
        ValueError: there are no gains, or no resamples.
    """
    seeds, prompts = gains.shape
    if not gains.size or resamples < 1:
        raise ValueError(f"need gains and resamples >= 1, got shape {gains.shape} and {resamples}")
    generator = np.random.default_rng(seed)
    weights = generator.multinomial(prompts, np.full(prompts, 1 / prompts), size=resamples) / prompts
    by_seed = weights @ gains.T
    drawn = generator.integers(0, seeds, size=(resamples, seeds))
    low, high = np.quantile(np.take_along_axis(by_seed, drawn, axis=1).mean(axis=1), [0.025, 0.975])
    return Interval(float(low), float(high))
