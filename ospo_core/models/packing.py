"""Prompts with their images as one sequence without padding, in which equal beginnings of rows stand once.

A position's state depends only on what stands before it, so the rows of a batch form a tree: `(x, y_w)` and `(x, y_l)`
share the prompt, `x` and `x~` share the words before the first that differs. Everything but attention works on single
positions and sees each of the tree's once; attention alone gathers rows. Rows begin at the same column there, so a
causal mask hides their padding, and no mask is needed that would rule out a fused kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedModel

from ospo_core.models.base import UnifiedModel
from ospo_core.models.sequences import moved_to

_NAME = "ospo_packed"


@dataclass(frozen=True)
class Packing:
    """Where the positions of `B` rows of up to `W` positions lie in a sequence of `N`.

    Attributes:
        places: `int64 [B, W]`, the place of each row's positions; 0 past a row's end.
        owners: `int64 [N]`, index into the flattened `places` of a row that has this place.
        depths: `int64 [N]`, number of positions before this one in its row.
        repeated: `int64 [R]`, indices into the flattened `places` of the positions that an owner stands for.
        sources: `int64 [N]`, index of each place into the flattened rows of left-padded prompts and image positions.
        predicting: `int64 [B, T]`, the place from whose state each image token is predicted.
    """

    places: torch.Tensor
    owners: torch.Tensor
    depths: torch.Tensor
    repeated: torch.Tensor
    sources: torch.Tensor
    predicting: torch.Tensor

    def to(self, device: torch.device) -> Packing:
        """Return the same on `device`, without waiting for a GPU."""
        return Packing(*(moved_to(device, getattr(self, field.name)) for field in fields(self)))


def pack(model: UnifiedModel, ids: torch.Tensor, attention_mask: torch.Tensor, tokens: torch.Tensor) -> Packing:
    """Return the packing of prompts with their images, on the CPU.

    Args:
        model: knows how tokens and positions relate.
        ids: `int64 [B, L]`.
        attention_mask: `int64 [B, L]`, left-padded.
        tokens: `int64 [B, T]`; the last one is predicted only and takes no position.
    """
    words, mask, codes = (each.cpu().numpy() for each in (ids, attention_mask, tokens))
    offsets = np.array([*model.token_offsets(codes.shape[1])], dtype=np.int64)
    lengths, columns = mask.sum(axis=1), words.shape[1] + int(offsets[-1])
    order, shared = _shared_beginnings(words, lengths, codes[:, :-1], offsets)
    ends = lengths + offsets[-1]
    depth = np.arange(ends.max())
    rows = np.arange(len(order))[:, None]
    # the last row up to this one that does not share the position with the row before it
    owner = np.maximum.accumulate(np.where(shared[:, None] <= depth, rows, 0), axis=0)
    inside = depth < ends[order][:, None]
    own = (owner == rows) & inside
    numbers = np.cumsum(own).reshape(own.shape) - 1
    places = np.empty_like(owner)
    places[order] = np.where(inside, np.take_along_axis(numbers, owner, axis=0), 0)
    row, depths = np.nonzero(own)
    row = order[row]
    again, at = np.nonzero(inside & ~own)
    arrays = (
        places,
        row * len(depth) + depths,
        depths,
        order[again] * len(depth) + at,
        row * columns + (words.shape[1] - lengths)[row] + depths,
        np.take_along_axis(places, lengths[:, None] - 1 + offsets, axis=1),
    )
    return Packing(*map(torch.from_numpy, arrays))


def _shared_beginnings(
    words: NDArray[np.int64], lengths: NDArray[np.int64], before: NDArray[np.int64], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return an order of the rows, and how many positions each row in it shares with the one before it."""
    width, drawn = words.shape[1], before.shape[1]
    # a row's key: its prompt from the first column on, its tokens as numbers below -1, filled up with -1
    padded = np.concatenate([words, -2 - before, np.full_like(words, -1)], axis=1)
    keys = np.take_along_axis(padded, np.arange(width + drawn) + (width - lengths)[:, None], axis=1)
    order = np.array(sorted(range(len(keys)), key=lambda row: keys[row].tobytes()))
    equal = np.cumprod(keys[order[1:]] == keys[order[:-1]], axis=1).sum(axis=1)
    prompt = lengths[order[1:]]
    tokens = np.clip(equal - prompt, 0, drawn)
    return order, np.concatenate([[0], np.minimum(equal, prompt) + offsets[tokens]])


def run_packed(model: UnifiedModel, packing: Packing, ids: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """Run the language model over prompts `[B, L]` and image tokens `[B, S]`; return states `[N, D]`."""
    prompt = model.embed_text(ids)
    rows = torch.cat([prompt, model.embed_image(before).to(prompt.dtype)], dim=1)
    embedded = rows.flatten(0, 1).index_select(0, packing.sources)
    with packed_attention(model.backbone):
        output = model.backbone(
            inputs_embeds=embedded[None],
            attention_mask=packing.places[None, None],  # of four dimensions, which transformers leaves as it is
            position_ids=packing.depths[None],
            use_cache=False,
            owners=packing.owners,
            repeated=packing.repeated,
        )
    states: torch.Tensor = output.last_hidden_state[0]
    return states


@contextmanager
def packed_attention(backbone: PreTrainedModel) -> Iterator[None]:
    """Let the backbone's attention follow a packing inside the block."""
    config: Any = backbone.config
    before, config._attn_implementation = config._attn_implementation, _NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def _attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float,
    dropout: float = 0.0,
    *,
    owners: torch.Tensor,
    repeated: torch.Tensor,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within the rows; arguments and result are those of transformers' attention functions.

    Args:
        module: the attention layer.
        query, key, value: `[1, heads, N, D]`; keys and values may have fewer heads.
        attention_mask: `Packing.places` as `[1, 1, B, W]`.
        scaling: factor of the scores.
        dropout: of the weights.
        owners: `Packing.owners`.
        repeated: `Packing.repeated`.
    """
    places = attention_mask[0, 0]

    def in_rows(packed: torch.Tensor) -> torch.Tensor:
        gathered: torch.Tensor = _Gather.apply(packed[0].transpose(0, 1), places.flatten(), owners, repeated)
        return gathered.unflatten(0, places.shape).transpose(1, 2)

    attended = functional.scaled_dot_product_attention(
        in_rows(query),
        in_rows(key),
        in_rows(value),
        dropout_p=dropout,
        is_causal=True,
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return _TakeOwned.apply(attended.transpose(1, 2).flatten(0, 1), owners)[None], None


class _Gather(torch.autograd.Function):
    """`packed[places]`; the gradient is gathered too, since a GPU adds up at indices in no order far more slowly.

    What stands past a row's end has no gradient: nothing attends to it.
    """

    @staticmethod
    def forward(
        ctx: Any, packed: torch.Tensor, places: torch.Tensor, owners: torch.Tensor, repeated: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(places, owners, repeated)
        return packed.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        places, owners, repeated = ctx.saved_tensors
        of_packed = gradients[0].index_select(0, owners)
        of_packed.index_add_(0, places[repeated], gradients[0].index_select(0, repeated))
        return of_packed, None, None, None


class _TakeOwned(torch.autograd.Function):
    """`rows[owners]`, where no owner stands twice, so that gradients are copied, not added up."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, owners: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(owners)
        ctx.count = len(rows)
        return rows.index_select(0, owners)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (owners,) = ctx.saved_tensors
        of_rows = gradients[0].new_zeros((ctx.count, *gradients[0].shape[1:]))
        return of_rows.index_copy_(0, owners, gradients[0]), None


AttentionInterface.register(_NAME, cast(Callable[..., Any], _attend))
