"""Yes/no answers about pictures: `p(yes)` and `p(no)` of the next token (docs/method.md, section 3.1).

A picture is one row of the language model: the text up to the picture's end, then the tree of all questions about it.
So it is read once, a question costs only the words in which it differs from the others, and nothing is asked twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from ospo_core.errors import ModelError
from ospo_core.models.base import UnifiedModel
from ospo_core.models.trees import Tree, grow, run_trees

Answer = tuple[float, float]
"""Next-token probabilities `(p_yes, p_no)`."""
FollowUp = Callable[[int, list[Answer]], Sequence[str]]
"""(index of a picture, answers to its questions) -> further questions about it."""


@torch.inference_mode()
def answer_questions(
    model: UnifiedModel,
    pictures: NDArray[np.uint8],
    questions: Sequence[Sequence[str]],
    batch_size: int,
    follow_up: FollowUp | None = None,
) -> list[list[Answer]]:
    """Answer questions about pictures.

    Args:
        model: the model.
        pictures: `uint8 [N, H, W, 3]` of the model's size; equal ones are read once.
        questions: `N` lists of questions; a list may be empty, and a question that is repeated is asked once.
        batch_size: different questions answered together, fewer where memory runs out; those of one picture are never
            split. It changes only rounding.
        follow_up: what else to ask about a picture that was asked something; the picture is not read again for it. It
            may be called again with the same arguments.

    Returns:
        For each picture `(p_yes, p_no)` of its questions and then of the further ones, each the largest next-token
        probability over the spellings.

    Raises:
        ValueError: pictures and lists of questions differ in number.
        ModelError: no spelling of yes or no is one token of the vocabulary.
    """
    if len(pictures) != len(questions):
        raise ValueError(f"{len(pictures)} pictures but {len(questions)} lists of questions")
    answers: list[list[Answer]] = [[] for _ in questions]
    groups = _equal_pictures(pictures, [index for index, asked in enumerate(questions) if asked])
    wanted = [_distinct(text for index in group for text in questions[index]) for group in groups]
    asking = _Asking(model, [text for texts in wanted for text in texts])
    order = sorted(range(len(groups)), key=lambda group: len(asking.tree(wanted[group]).ids))

    def answer(part: slice) -> dict[int, list[Answer]]:
        some = [groups[group] for group in order[part]]
        cache = asking.read(pictures[[group[0] for group in some]])
        replies = asking.ask(cache, [wanted[group] for group in order[part]])
        texts = {index: list(questions[index]) for group in some for index in group}
        if follow_up is not None:
            for group, known in zip(some, replies, strict=True):
                for index in group:
                    texts[index] += follow_up(index, [known[text] for text in questions[index]])
            further = [_distinct(text for index in group for text in texts[index]) for group in some]
            asking.ask_further(cache, replies, further)
        return {
            index: [known[text] for text in texts[index]]
            for group, known in zip(some, replies, strict=True)
            for index in group
        }

    for _, found in model.batching.run("answering", [len(wanted[group]) for group in order], batch_size, answer):
        for index, given in found.items():
            answers[index] = given
    return answers


def question_ids(model: UnifiedModel, questions: Sequence[str]) -> tuple[list[int], list[list[int]]]:
    """Tokenize questions; return the ids up to the picture's last position, the same for all, and the ids after it.

    Raises:
        ModelError: the texts do not hold exactly one picture each at the same place.
    """
    picture, width = model.picture_id, model.geometry.read_positions
    marker = str(model.tokenizer.convert_ids_to_tokens(picture))
    texts = [model.question_text(question) for question in questions]
    whole: list[int] = model.tokenizer(texts[0])["input_ids"]
    short = [text.replace(marker * width, marker) for text in texts]  # a picture's hundreds of markers take long
    rows: list[list[int]] = model.tokenizer(short, padding=False)["input_ids"]
    start = rows[0].index(picture) if picture in rows[0] else 0
    cut, prefix = start + 1, rows[0][:start] + [picture] * width
    alike = whole == prefix + rows[0][cut:]
    if not alike or any(row[:cut] != rows[0][:cut] or row.count(picture) != 1 for row in rows):
        raise ModelError(
            "the text of a question does not hold exactly one picture",
            field="tokenizer",
            remedy="Check the prompt family's vqa_text and the model's placeholder token",
        )
    return prefix, [row[cut:] for row in rows]


class _Asking:
    """Asks questions about pictures; each text is tokenized once."""

    def __init__(self, model: UnifiedModel, texts: Sequence[str]) -> None:
        self._model = model
        self._prefix: list[int] = []
        self._rows: dict[str, list[int]] = {}
        self._encode(texts)

    def tree(self, texts: Sequence[str]) -> Tree:
        """Return the tree of what follows the picture in some texts."""
        return grow([self._rows[text] for text in texts])

    def read(self, pictures: NDArray[np.uint8]) -> Cache:
        """Read the text up to the end of each of the pictures `[P, H, W, 3]`; return all keys and values."""
        model, features = self._model, self._model.embed_pictures(pictures)
        ids = torch.tensor(self._prefix, device=model.device).expand(len(pictures), -1)
        embeddings = model.embed_text(ids)
        holes = (ids == model.picture_id)[..., None]
        embeddings = embeddings.masked_scatter(holes, features.to(embeddings.dtype))
        cache = Cache(layer_class_to_replicate=_UncopiedLayer)
        model.backbone(inputs_embeds=embeddings, past_key_values=cache, use_cache=True)
        return cache

    def ask(self, cache: Cache, texts: Sequence[Sequence[str]]) -> list[dict[str, Answer]]:
        """Ask different questions about each picture that was read."""
        states = run_trees(self._model, cache, [self.tree(some) for some in texts])
        chances = self._model.text_logits(states).float().softmax(dim=-1)
        yes, no = (chances[:, spellings].amax(dim=-1).tolist() for spellings in self._model.answer_ids)
        found = zip(yes, no, strict=True)
        return [{text: next(found) for text in some} for some in texts]

    def ask_further(self, cache: Cache, replies: Sequence[dict[str, Answer]], texts: Sequence[Sequence[str]]) -> None:
        """Ask those of `texts` that `replies` do not answer, and add their answers; `cache` has been asked before."""
        new = [[text for text in some if text not in known] for some, known in zip(texts, replies, strict=True)]
        asked = [row for row, some in enumerate(new) if some]
        if not asked:
            return
        self._encode([text for some in new for text in some])
        cache.crop(len(self._prefix) - cache.get_seq_length())
        if len(asked) < len(new):
            cache.batch_select_indices(torch.tensor(asked, device=self._model.device))
        for row, answers in zip(asked, self.ask(cache, [new[row] for row in asked]), strict=True):
            replies[row].update(answers)

    def _encode(self, texts: Iterable[str]) -> None:
        """Tokenize the texts that are new."""
        if new := [text for text in _distinct(texts) if text not in self._rows]:
            known = list(self._rows)[:1]  # so that the beginnings of old and new texts are compared
            self._prefix, rows = question_ids(self._model, [*known, *new])
            self._rows.update(zip([*known, *new], rows, strict=True))


class _UncopiedLayer(DynamicLayer):
    """Keeps the keys and values of the first positions as they are, where transformers' own copies them."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **options: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append positions; return all keys and values."""
        if self.is_initialized:
            both: tuple[torch.Tensor, torch.Tensor] = super().update(key_states, value_states, *args, **options)
            return both
        self.lazy_initialization(key_states, value_states)
        self.keys, self.values = key_states, value_states
        return key_states, value_states


def _distinct(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _equal_pictures(pictures: NDArray[np.uint8], indices: Iterable[int]) -> list[list[int]]:
    """Return `indices` in groups of equal pictures."""
    groups: dict[bytes, list[int]] = {}
    for index in indices:
        groups.setdefault(blake2b(pictures[index].tobytes()).digest(), []).append(index)
    return list(groups.values())
