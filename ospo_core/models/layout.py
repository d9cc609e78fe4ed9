"""Sequences: left-padded batches of texts, positions from the mask, and the unconditional half of guidance.

Padding is on the left so that every row ends at the same column and image tokens line up. A padded column is masked
and does not count as a position, so a row's result does not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase

from ospo_core.models.loading import LoadedModel, SpecialTokens


def pad_left(rows: Sequence[Sequence[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack rows of ids into `int64 [B, L]` and a mask `int64 [B, L]` (1 = real), padding on the left."""
    length = max((len(row) for row in rows), default=0)
    ids = torch.full((len(rows), length), pad, dtype=torch.int64)
    mask = torch.zeros((len(rows), length), dtype=torch.int64)
    for index, row in enumerate(rows):
        if row:
            ids[index, length - len(row) :] = torch.tensor(row, dtype=torch.int64)
            mask[index, length - len(row) :] = 1
    return ids, mask


def encode_texts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokenize texts (the tokenizer adds the begin-of-sequence token) and pad them on the left.

    Returns:
        ids `int64 [B, L]` and attention mask `int64 [B, L]`, both on the CPU.
    """
    rows: list[list[int]] = tokenizer(list(texts), padding=False)["input_ids"] if texts else []
    return pad_left(rows, int(tokenizer.pad_token_id))


def encode_generation(loaded: LoadedModel, prompts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and mask `[B, L]` of the texts after which the model writes the image tokens of `prompts`."""
    return encode_texts(loaded.tokenizer, [loaded.family.generation_text(prompt) for prompt in prompts])


def unconditional_ids(input_ids: torch.Tensor, special: SpecialTokens) -> torch.Tensor:
    """Return the prompt of the unconditional half: all but begin-of-sequence and begin-of-image becomes padding.

    The attention mask stays that of the conditional half, so the replaced tokens are still attended to, as in
    transformers' `JanusForConditionalGeneration.generate` and in Janus' own sampler (arXiv 2501.17811).

    Args:
        input_ids: `[B, L]`.
        special: ids of special tokens.
    """
    keep = (input_ids == special.bos) | (input_ids == special.begin_of_image)
    return input_ids.masked_fill(~keep, special.pad)


def positions(attention_mask: torch.Tensor) -> torch.Tensor:
    """Return position ids `[B, L]`: the count of real tokens before each one; padded columns get 0."""
    return (attention_mask.cumsum(dim=-1) - 1).clamp(min=0)


def batches(count: int, batch_size: int) -> list[slice]:
    """Return the slices that cut `count` rows into batches of at most `batch_size`."""
    return [slice(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]
