"""Yes/no answers about pictures: `p(yes)` and `p(no)` of the next token (docs/method.md, section 3.1).

The vision encoder runs once per picture, and so does the language model over everything up to the picture's end: its
keys and values are shared by all questions about the picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Cache

from ospo_core.errors import ModelError
from ospo_core.models.base import UnifiedModel
from ospo_core.models.sequences import pad_left, positions

Answer = tuple[float, float]
"""Next-token probabilities `(p_yes, p_no)`."""


@torch.inference_mode()
def answer_questions(
    model: UnifiedModel, pictures: NDArray[np.uint8], questions: Sequence[Sequence[str]], batch_size: int
) -> list[list[Answer]]:
    """Answer questions about pictures.

    Args:
        pictures: `uint8 [N, H, W, 3]` of the model's size.
        questions: `N` lists of questions; a list may be empty.
        batch_size: questions answered together, fewer where memory runs out; those of one picture are never split. It
            changes only rounding.

    Returns:
        For each picture and question `(p_yes, p_no)`, each the largest next-token probability over the spellings.

    Raises:
        ValueError: pictures and lists of questions differ in number.
        ModelError: no spelling of yes or no is one token of the vocabulary.
    """
    if len(pictures) != len(questions):
        raise ValueError(f"{len(pictures)} pictures but {len(questions)} lists of questions")
    answers: list[list[Answer]] = [[] for _ in questions]
    of_interest = [index for index, asked in enumerate(questions) if asked]

    def answer(part: slice) -> list[Answer]:
        group = of_interest[part]
        owners = [local for local, index in enumerate(group) for _ in questions[index]]
        asked = [question for index in group for question in questions[index]]
        return _probabilities(model, pictures[group], asked, owners)

    counts = [len(questions[index]) for index in of_interest]
    for part, found in model.batching.run("answering", counts, batch_size, answer):
        given = iter(found)
        for index in of_interest[part]:
            answers[index] = [next(given) for _ in questions[index]]
    return answers


def question_ids(model: UnifiedModel, questions: Sequence[str]) -> tuple[list[int], list[list[int]]]:
    """Tokenize questions; return the ids up to the picture's last position, the same for all, and the ids after it.

    Raises:
        ModelError: the texts do not hold exactly one picture each at the same place.
    """
    picture, width = model.picture_id, model.geometry.read_positions
    texts = [model.question_text(question) for question in questions]
    rows: list[list[int]] = model.tokenizer(texts, padding=False)["input_ids"]
    start = rows[0].index(picture) if picture in rows[0] else 0
    cut = start + width
    prefix = rows[0][:cut]
    if any(row[:cut] != prefix or row.count(picture) != width for row in rows):
        raise ModelError(
            "the text of a question does not hold exactly one picture",
            field="tokenizer",
            remedy="Check the prompt family's vqa_text and the model's placeholder token",
        )
    return prefix, [row[cut:] for row in rows]


def _probabilities(
    model: UnifiedModel, pictures: NDArray[np.uint8], questions: Sequence[str], owners: Sequence[int]
) -> list[Answer]:
    """Answer one group: `pictures [P, H, W, 3]`, `Q` questions, and for each question the picture it is about."""
    prefix, rows = question_ids(model, questions)
    cache = _picture_cache(model, pictures, prefix)
    cache.batch_select_indices(torch.tensor(owners, device=model.device))
    ids, mask = pad_left(rows, model.pad_id)
    mask = torch.cat([mask.new_ones((len(rows), len(prefix))), mask], dim=1).to(model.device)
    output = model.backbone(
        inputs_embeds=model.embed_text(ids.to(model.device)),
        attention_mask=mask,
        position_ids=positions(mask)[:, len(prefix) :],
        past_key_values=cache,
        use_cache=True,
    )
    chances = model.text_logits(output.last_hidden_state[:, -1]).float().softmax(dim=-1)
    yes, no = (chances[:, spellings].amax(dim=-1).tolist() for spellings in model.answer_ids)
    return list(zip(yes, no, strict=True))


def _picture_cache(model: UnifiedModel, pictures: NDArray[np.uint8], prefix: Sequence[int]) -> Cache:
    """Read pictures `[P, H, W, 3]`, each after the same `prefix` of ids, and return all their keys and values."""
    features = model.embed_pictures(pictures)
    ids = torch.tensor(prefix, device=model.device).expand(len(pictures), -1)
    embeddings = model.embed_text(ids)
    holes = (ids == model.picture_id)[..., None]
    embeddings = embeddings.masked_scatter(holes, features.to(embeddings.dtype))
    cache: Cache = model.backbone(inputs_embeds=embeddings, use_cache=True).past_key_values
    return cache
