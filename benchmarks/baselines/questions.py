"""Answers to yes/no questions with the picture read again for every question, as in the published code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ospo_core.models.base import UnifiedModel
from ospo_core.models.sequences import encode_texts

Together = Literal["picture"] | int
"""Questions answered in one forward pass: those of one picture, or so many."""


@torch.inference_mode()
def reread_answers(
    model: UnifiedModel, pictures: NDArray[np.uint8], questions: Sequence[Sequence[str]], together: Together
) -> list[list[tuple[float, float]]]:
    """Return `(p_yes, p_no)` of each picture's questions; every row holds the whole picture and one question.

    Args:
        pictures: `uint8 [N, H, W, 3]`.
        questions: `N` lists.
        together: what shares a forward pass.
    """
    rows = [(index, question) for index, asked in enumerate(questions) for question in asked]
    if together == "picture":
        parts = [[(index, question) for question in asked] for index, asked in enumerate(questions) if asked]
    else:
        parts = [rows[start : start + together] for start in range(0, len(rows), together)]
    found: list[tuple[float, float]] = []
    for part in parts:
        found += _answer(model, pictures[[index for index, _ in part]], [question for _, question in part])
    given = iter(found)
    return [[next(given) for _ in asked] for asked in questions]


def _answer(model: UnifiedModel, pictures: NDArray[np.uint8], questions: Sequence[str]) -> list[tuple[float, float]]:
    """Answer one question about each picture `[B, H, W, 3]`."""
    ids, mask = encode_texts(model.tokenizer, [model.question_text(question) for question in questions])
    ids, mask = ids.to(model.device), mask.to(model.device)
    embeddings = model.embed_text(ids)
    features = model.embed_pictures(pictures).to(embeddings.dtype)
    output = model.backbone(
        inputs_embeds=embeddings.masked_scatter((ids == model.picture_id)[..., None], features),
        attention_mask=mask,
        position_ids=(mask.cumsum(dim=-1) - 1).clamp(min=0),
        use_cache=False,
    )
    chances = model.text_logits(output.last_hidden_state[:, -1]).float().softmax(dim=-1)
    yes, no = (chances[:, spellings].amax(dim=-1).tolist() for spellings in model.answer_ids)
    return list(zip(yes, no, strict=True))
