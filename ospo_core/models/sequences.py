"""Sequences of ids: left-padded batches of texts, positions from the mask, answers of one token.

Padding is on the left so that every row ends at the same column and image tokens line up. A padded column is masked
and does not count as a position, so a row's result does not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from ospo_core.errors import ModelError


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


def stack_left(parts: Sequence[tuple[torch.Tensor, torch.Tensor]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack batches of ids and masks `[B, L]`, each of its own length, into one; the shorter are padded on the left."""
    length = max(ids.shape[1] for ids, _ in parts)
    ids = torch.cat([functional.pad(part, (length - part.shape[1], 0), value=pad) for part, _ in parts])
    mask = torch.cat([functional.pad(part, (length - part.shape[1], 0)) for _, part in parts])
    return ids, mask


def encode_texts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokenize texts (the tokenizer adds the begin-of-sequence token) and pad them as `pad_left` does."""
    rows: list[list[int]] = tokenizer(list(texts), padding=False)["input_ids"] if texts else []
    return pad_left(rows, int(tokenizer.pad_token_id))


def positions(attention_mask: torch.Tensor) -> torch.Tensor:
    """Return position ids `[B, L]`: the number of real tokens before each one; padded columns get 0."""
    return (attention_mask.cumsum(dim=-1) - 1).clamp(min=0)


def moved_to(device: torch.device, tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor of the CPU on `device`; a copy to a GPU is started, not waited for."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def single_token_ids(tokenizer: PreTrainedTokenizerBase, spellings: Sequence[str]) -> list[int]:
    """Return the ids of those spellings of an answer that are one known token.

    Raises:
        ModelError: none of them is.
    """
    ids = set()
    for spelling in spellings:
        tokens = tokenizer.encode(spelling, add_special_tokens=False)
        if len(tokens) == 1 and tokens[0] != tokenizer.unk_token_id:
            ids.add(int(tokens[0]))
    if not ids:
        raise ModelError(
            "no spelling of an answer is one token",
            field="tokenizer",
            value=tuple(spellings),
            remedy="Check the prompt family",
        )
    return sorted(ids)


def by_length(texts: Sequence[str]) -> list[int]:
    """Return the indices of `texts` from the shortest to the longest; equal texts are neighbours and keep their order.

    Rows are padded to the longest of their batch, so batches of mixed lengths would mostly compute padding. Length is
    counted in characters, which is close enough.
    """
    return sorted(range(len(texts)), key=lambda index: (len(texts[index]), texts[index]))


def batches(count: int, batch_size: int) -> list[slice]:
    """Return the slices that cut `count` rows into batches of at most `batch_size`."""
    return [slice(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]
