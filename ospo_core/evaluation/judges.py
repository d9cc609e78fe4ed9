"""Judges of a picture: the model itself by yes/no questions, and the embedded world's oracle; how well they agree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from ospo_core.selection.scoring import answer_score, is_yes

if TYPE_CHECKING:
    from ospo_core.evaluation.prompts import EvalPrompt
    from ospo_core.models.base import UnifiedModel

Oracle = Callable[[NDArray[np.uint8], str], bool | None]
"""(picture [H, W, 3], prompt) -> whether the picture satisfies the prompt; None if undecidable."""


def embedded_oracle(picture: NDArray[np.uint8], prompt: str) -> bool | None:
    """Return the verdict of the embedded world's oracle, which reads the objects back from `picture` [H, W, 3].

    None for a prompt outside its language or a picture of another size.
    """
    from ospo_core.shapes.grammar import GrammarError
    from ospo_core.shapes.oracle import satisfies
    from ospo_core.shapes.world import SIZE

    if picture.shape != (SIZE, SIZE, 3):
        return None
    try:
        return bool(satisfies(picture, prompt))
    except GrammarError:
        return None


def self_vqa_scores(
    loaded: UnifiedModel, prompts: Sequence[EvalPrompt], pictures: NDArray[np.uint8], batch_size: int
) -> list[list[float]]:
    """Return `s_k = p(yes) - p(no)` (docs/method.md, section 3) of every question, as the model itself answers.

    There is one prompt per picture of `pictures` [N, H, W, 3]; without questions, one question about the whole prompt
    is asked. `batch_size` questions are answered together.
    """
    from ospo_core.models.vqa import answer_questions

    whole = "is there {} ?" if loaded.family.name == "shapes" else "Does the image show exactly this: {}?"
    questions = [prompt.questions or [whole.format(prompt.prompt)] for prompt in prompts]
    answers = answer_questions(loaded, pictures, questions, batch_size)
    return [[answer_score(p_yes, p_no) for p_yes, p_no in answer] for answer in answers]


def all_yes(scores: Sequence[float]) -> bool:
    """Return whether there is a question and every `s_k` is above 0: yes is more probable than no."""
    return bool(scores) and all(is_yes(score) for score in scores)


class JudgeQuality(BaseModel):
    """Agreement of the model's own verdicts with the oracle's, over `images` pictures; undefined figures are None.

    `auc` is the probability that a picture accepted by the oracle has a higher VQA score than a rejected one.
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

    Rows without an oracle's verdict are ignored; None if no row has one.
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
        precision=hits / (hits + false_alarms) if hits + false_alarms else None,
        recall=hits / (hits + misses) if hits + misses else None,
        auc=area_under_curve([row["vqa_score"] for row in judged], truths.tolist()),
    )
