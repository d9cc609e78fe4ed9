"""Judges of a picture: the model itself by yes/no questions, and the oracle of the embedded world."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ospo_core.errors import ConfigError
from ospo_core.selection.scoring import answer_score, is_yes

if TYPE_CHECKING:
    from ospo_core.models.base import UnifiedModel

Pictures = NDArray[np.uint8]
"""Pictures [N, H, W, 3], RGB, uint8."""

Verdict = Callable[[Any, str], bool | None]
"""(picture [H, W, 3], prompt) -> whether the picture satisfies the prompt, or None."""

_WHOLE_PROMPT = {"shapes": "is there {prompt} ?"}
_WHOLE_PROMPT_DEFAULT = "Does the image show exactly this: {prompt}?"


class Judge(Protocol):
    """Says of each picture whether it satisfies a prompt."""

    def judge(self, prompt: str, pictures: Pictures) -> Sequence[bool | None]:
        """Return a verdict on each of `pictures` [N, H, W, 3]; None where the judge does not understand the prompt."""
        ...


class SelfVqaJudge:
    """The model as its own judge: a picture is right if every question about it is answered yes.

    Args:
        loaded: the model that answers.
        questions: prompt to its questions; a prompt without any is asked about as a whole.
        batch_size: pictures a forward pass.
    """

    def __init__(self, loaded: UnifiedModel, questions: dict[str, list[str]], batch_size: int) -> None:
        self._loaded, self._questions, self._batch_size = loaded, questions, batch_size

    def questions_for(self, prompt: str) -> list[str]:
        """Return the prompt's own questions, or the one question about the whole prompt."""
        template = _WHOLE_PROMPT.get(self._loaded.family.name, _WHOLE_PROMPT_DEFAULT)
        return self._questions.get(prompt) or [template.format(prompt=prompt)]

    def scores(self, prompts: Sequence[str], pictures: Pictures) -> list[list[float]]:
        """Return `s_k = p(yes) - p(no)` (method, section 3) of every question, one prompt for each picture."""
        from ospo_core.models.vqa import answer_questions

        asked = [self.questions_for(prompt) for prompt in prompts]
        answers = answer_questions(self._loaded, pictures, asked, self._batch_size)
        return [[answer_score(p_yes, p_no) for p_yes, p_no in answer] for answer in answers]

    def judge(self, prompt: str, pictures: Pictures) -> list[bool]:
        """Return whether every question of `prompt` is answered yes (`s_k > 0`), for each picture."""
        return [all_yes(scores) for scores in self.scores([prompt] * len(pictures), pictures)]


class OracleJudge:
    """The embedded world's oracle, which reads a picture back into objects.

    Args:
        satisfies: (picture [H, W, 3] uint8, prompt) -> verdict; by default the oracle of the embedded world, which
            has no verdict (None) on a prompt outside its language or a picture of another size.

    Raises:
        ConfigError: the embedded world is not in this installation.
    """

    def __init__(self, satisfies: Verdict | None = None) -> None:
        self._satisfies = satisfies or _embedded_oracle()

    def judge(self, prompt: str, pictures: Pictures) -> list[bool | None]:
        """Return the oracle's verdict on each picture."""
        return [self._satisfies(picture, prompt) for picture in pictures]


def all_yes(scores: Sequence[float]) -> bool:
    """Return whether there is a question and every `s_k` is above 0, that is, yes is more probable than no."""
    return bool(scores) and all(is_yes(score) for score in scores)


def _embedded_oracle() -> Verdict:
    try:
        from ospo_core.shapes.grammar import GrammarError
        from ospo_core.shapes.oracle import satisfies
        from ospo_core.shapes.world import SIZE
    except ImportError as error:
        raise ConfigError(
            "the embedded world is not in this installation",
            field="promotion.metric",
            value="oracle",
            remedy="Reinstall the package, or set promotion.metric=vqa",
        ) from error

    def verdict(picture: Any, prompt: str) -> bool | None:
        if picture.shape != (SIZE, SIZE, 3):
            return None
        try:
            return bool(satisfies(picture, prompt))
        except GrammarError:
            return None

    return verdict
