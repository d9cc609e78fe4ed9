"""Judges of a picture: the model itself by yes/no questions, and the embedded world's oracle; how well they agree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from ospo_core.selection.scoring import answer_score, is_yes

if TYPE_CHECKING:
    from ospo_core.models.base import UnifiedModel

Pictures = NDArray[np.uint8]
"""Pictures [N, H, W, 3], RGB, uint8."""

Verdict = Callable[[Any, str], bool | None]
"""(picture [H, W, 3], prompt) -> whether the picture satisfies the prompt; None if undecidable."""

_WHOLE_PROMPT = {"shapes": "is there {prompt} ?"}
_WHOLE_PROMPT_DEFAULT = "Does the image show exactly this: {prompt}?"


class Judge(Protocol):
    """Decides for each picture whether it satisfies a prompt."""

    def judge(self, prompt: str, pictures: Pictures) -> Sequence[bool | None]:
        """Return a verdict on each of `pictures` [N, H, W, 3]; None if the judge does not understand the prompt."""
        ...


class SelfVqaJudge:
    """The model as its own judge: a picture is correct if the answer to every question about it is yes.

    Args:
        loaded: the model that answers.
        questions: prompt to its questions; without any, one question about the whole prompt is used.
        batch_size: pictures per forward pass.
    """

    def __init__(self, loaded: UnifiedModel, questions: dict[str, list[str]], batch_size: int) -> None:
        self._loaded, self._questions, self._batch_size = loaded, questions, batch_size

    def questions_for(self, prompt: str) -> list[str]:
        """Return the prompt's own questions, or one question about the whole prompt."""
        template = _WHOLE_PROMPT.get(self._loaded.family.name, _WHOLE_PROMPT_DEFAULT)
        return self._questions.get(prompt) or [template.format(prompt=prompt)]

    def scores(self, prompts: Sequence[str], pictures: Pictures) -> list[list[float]]:
        """Return `s_k = p(yes) - p(no)` (docs/method.md, section 3) of every question; one prompt per picture."""
        from ospo_core.models.vqa import answer_questions

        questions = [self.questions_for(prompt) for prompt in prompts]
        answers = answer_questions(self._loaded, pictures, questions, self._batch_size)
        return [[answer_score(p_yes, p_no) for p_yes, p_no in answer] for answer in answers]

    def judge(self, prompt: str, pictures: Pictures) -> list[bool]:
        """Return for each picture whether the answer to every question of `prompt` is yes (`s_k > 0`)."""
        return [all_yes(scores) for scores in self.scores([prompt] * len(pictures), pictures)]


class OracleJudge:
    """The embedded world's oracle, which reads the objects back from a picture.

    Args:
        satisfies: (picture [H, W, 3] uint8, prompt) -> verdict; by default the oracle of the embedded world, whose
            verdict is None for a prompt outside its language or a picture of another size.
    """

    def __init__(self, satisfies: Verdict | None = None) -> None:
        self._satisfies = satisfies or _embedded_oracle()

    def judge(self, prompt: str, pictures: Pictures) -> list[bool | None]:
        """Return the oracle's verdict on each picture."""
        return [self._satisfies(picture, prompt) for picture in pictures]


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
        precision=_share(hits, hits + false_alarms),
        recall=_share(hits, hits + misses),
        auc=area_under_curve([row["vqa_score"] for row in judged], truths.tolist()),
    )


def _embedded_oracle() -> Verdict:
    """Return the embedded world's oracle; imported here because it is needed only for that world."""
    from ospo_core.shapes.grammar import GrammarError
    from ospo_core.shapes.oracle import satisfies
    from ospo_core.shapes.world import SIZE

    def verdict(picture: Any, prompt: str) -> bool | None:
        if picture.shape != (SIZE, SIZE, 3):
            return None
        try:
            return bool(satisfies(picture, prompt))
        except GrammarError:
            return None

    return verdict


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
