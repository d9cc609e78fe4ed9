"""How good a judge the model is of its own pictures, measured where an oracle knows the truth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict


class JudgeQuality(BaseModel):
    """Self-VQA against the oracle, over `images` pictures; a figure that is undefined is None.

    `auc` is the probability that a picture the oracle accepts has a higher VQA score than one that it refuses.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: int
    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int
    accuracy: float | None
    precision: float | None
    recall: float | None
    auc: float | None


def area_under_curve(scores: Sequence[float], truths: Sequence[bool]) -> float | None:
    """Return the ROC area by ranks (Mann-Whitney U / (n_pos n_neg)), ties counting half; None for a single class."""
    values, labels = np.asarray(scores, dtype=np.float64), np.asarray(truths, dtype=bool)
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if not positives or not negatives:
        return None
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2.0)[inverse]
    statistic = float(ranks[labels].sum()) - positives * (positives + 1) / 2.0
    return statistic / (positives * negatives)


def judge_quality(rows: Iterable[Mapping[str, Any]]) -> JudgeQuality | None:
    """Compare `vqa_correct` and `vqa_score` with `oracle_correct` in rows of the table `evaluation`.

    Rows without an oracle's verdict are left out; None when there is no row with one.
    """
    judged = [row for row in rows if row["oracle_correct"] is not None and row["vqa_correct"] is not None]
    if not judged:
        return None
    claims = np.array([bool(row["vqa_correct"]) for row in judged])
    truths = np.array([bool(row["oracle_correct"]) for row in judged])
    hits, false_alarms = int((claims & truths).sum()), int((claims & ~truths).sum())
    misses, refusals = int((~claims & truths).sum()), int((~claims & ~truths).sum())
    return JudgeQuality(
        images=len(judged),
        true_positives=hits,
        false_positives=false_alarms,
        false_negatives=misses,
        true_negatives=refusals,
        accuracy=(hits + refusals) / len(judged),
        precision=_share(hits, hits + false_alarms),
        recall=_share(hits, hits + misses),
        auc=area_under_curve([row["vqa_score"] for row in judged], truths.tolist()),
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
