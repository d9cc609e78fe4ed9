"""Accuracy of one model by category, with intervals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from ospo_core.evaluation import metric_column, wilson_interval
from ospo_core.stages.base import Row

ALL = "all"


def accuracy_by_category(rows: Sequence[Row], metric: str) -> dict[str, Any]:
    """Return the metric that was used and, for `all` and every category, prompts, accuracy and 95 % interval.

    A prompt counts once, with the mean over its samples.

    Raises:
        StageError: the oracle was asked for and has not judged every picture.
    """
    used, column = metric_column(rows, metric)
    samples: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for row in rows:
        samples[row["category"], row["item_id"]].append(bool(row[column]))
    groups: dict[str, list[float]] = defaultdict(list)
    for (category, _), verdicts in samples.items():
        for name in (ALL, category):
            groups[name].append(fmean(verdicts))
    return {"metric": used, "groups": {name: _group(values) for name, values in sorted(groups.items())}}


def _group(values: Sequence[float]) -> dict[str, float]:
    share = fmean(values)
    interval = wilson_interval(share, len(values))
    return {"prompts": len(values), "accuracy": share, "low": interval.low, "high": interval.high}
