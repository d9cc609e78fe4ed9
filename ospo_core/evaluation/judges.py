"""Judges of a picture: a model by yes/no questions, and the embedded world's oracle; how well they agree.

`ospo_core.evaluation.endpoint_judge` has a judge behind a server.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from ospo_core.selection.scoring import is_yes

if TYPE_CHECKING:
    from ospo_core.models.base import UnifiedModel

ANSWERS = "answers"
"""Name among the counts of the questions answered about pictures."""
WITHOUT_PROBABILITIES = "answers_without_probabilities"
"""Name among the counts of the answers that came as a word, without log-probabilities (servers only)."""
NEITHER = "answers_neither_yes_nor_no"
"""Name among the counts of the answers that held neither yes nor no (servers only)."""

WHOLE, WHOLE_SHAPES = "Does the image show exactly this: {}?", "is there {} ?"

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


class PictureJudge(Protocol):
    """Answers yes/no questions about pictures. `counts` adds up what was unusual about its answers."""

    counts: Counter[str]

    def answer(self, pictures: Sequence[bytes], questions: Sequence[Sequence[str]]) -> list[list[tuple[float, float]]]:
        """Return `(p_yes, p_no)` for each PNG of `pictures` and each of its questions."""

    def close(self) -> None:
        """Free what it holds of its own."""


class ModelJudge:
    """A loaded model as the judge, which answers `batch_size` questions together; the model belongs to its owner."""

    def __init__(self, loaded: UnifiedModel, batch_size: int) -> None:
        self._loaded, self._batch_size = loaded, batch_size
        self.counts: Counter[str] = Counter()

    def answer(self, pictures: Sequence[bytes], questions: Sequence[Sequence[str]]) -> list[list[tuple[float, float]]]:
        """Return `(p_yes, p_no)` per picture and question; pictures of another size are resized to the model's."""
        from ospo_core.models.pictures import decode_png, resized
        from ospo_core.models.vqa import answer_questions

        geometry = self._loaded.geometry
        arrays = [resized(decode_png(picture), geometry.height, geometry.width) for picture in pictures]
        return answer_questions(self._loaded, np.stack(arrays), questions, self._batch_size) if arrays else []

    def close(self) -> None:
        """Do nothing: the model belongs to its owner."""


class JudgedBy(BaseModel):
    """Who judged, for the manifest of an evaluation and its report.

    Args:
        kind: `start`, `parent`, `model`, `self` or `endpoint` (`EvaluationConfig.judge`).
        name: digest of the model, or its name on the server; empty if each model judged its own pictures.
        answers: number of questions answered about all pictures.
        without_probabilities: of these, answers that came as a word only.
        neither: of these, answers that were neither yes nor no; they count as not yes.
        decomposed: held-out prompts that were decomposed into questions by a model.
        whole: held-out prompts asked about as a whole, since their decomposition failed.
        questions_by: digest of the model that decomposed them; empty if all prompts came with questions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["start", "parent", "model", "self", "endpoint"]
    name: str = ""
    answers: int = 0
    without_probabilities: int = 0
    neither: int = 0
    decomposed: int = 0
    whole: int = 0
    questions_by: str = ""

    @property
    def who(self) -> str:
        """Who judged, as part of a sentence."""
        short = self.name[:12]
        return {
            "start": f"the model that the first round started from ({short})",
            "parent": f"the parent ({short})",
            "model": f"the model {short}",
            "endpoint": f"{self.name} behind an endpoint",
            "self": "each model itself, which is weak evidence",
        }[self.kind]

    @property
    def in_words(self) -> str:
        """Who judged and by how many answers, as part of a sentence."""
        words = f" ({self.without_probabilities} of them without probabilities)" if self.without_probabilities else ""
        return f"{self.who}, by {self.answers} answers to yes/no questions{words}"


def whole_question(prompt: str, family: str) -> str:
    """Return the question about a whole prompt, asked where it could not be decomposed."""
    return (WHOLE_SHAPES if family == "shapes" else WHOLE).format(prompt)


def all_yes(scores: Sequence[float]) -> bool:
    """Return whether there is a question and every `s_k` is above 0: yes is more probable than no."""
    return bool(scores) and all(is_yes(score) for score in scores)


class JudgeQuality(BaseModel):
    """Agreement of the judge's verdicts with the oracle's, over `images` pictures; undefined figures are None.

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
