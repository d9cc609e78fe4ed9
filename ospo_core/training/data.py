"""Pairs from Parquet to micro-batches, in an order that depends only on the seed and the step.

Shapes: `B` pairs per micro-batch, `N` sequences in it, `L` prompt length, `T` image tokens.
Only prompts, tokens and masks are held in memory (Janus-Pro: 2.3 kB per pair without masks); pictures are never read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from ospo_core.artifacts.ids import derive_seed
from ospo_core.config.sections import TrainingConfig
from ospo_core.errors import TrainingError
from ospo_core.models.base import UnifiedModel
from ospo_core.models.packing import Packing, pack
from ospo_core.models.sequences import by_length, moved_to, stack_left

_TOKEN_COLUMNS = ("chosen_tokens", "rejected_tokens")
_MASK_COLUMNS = ("chosen_mask", "rejected_mask")


@dataclass(frozen=True)
class MicroBatch:
    """The input of one forward pass: the sequences of `B` pairs, stacked in one batch.

    Rows are, in this order: `(x, y_w)` of every pair; `(x, y_l)` if the loss uses it; `(x~, y_w)` if the loss uses it;
    `y_w` without a caption for those pairs whose caption was dropped.

    Attributes:
        input_ids: `int64 [N, L]`, left-padded.
        attention_mask: `int64 [N, L]`.
        tokens: `int64 [N, T]`.
        mask: `float32 [N, T]` object masks, or None.
        pairs: `B`.
        has_rejected: whether the second group is present.
        has_negative: whether the third group is present.
        dropped: `bool [B]`, pairs whose SFT term is unconditional.
        packing: the sequences without padding, equal beginnings once.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    tokens: torch.Tensor
    mask: torch.Tensor | None
    pairs: int
    has_rejected: bool
    has_negative: bool
    dropped: torch.Tensor
    packing: Packing

    def to(self, device: torch.device) -> MicroBatch:
        """Return the batch with its tensors on `device`, without waiting for a GPU."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, torch.Tensor)}
        moved: dict[str, Any] = {name: moved_to(device, tensor) for name, tensor in tensors.items()}
        return replace(self, packing=self.packing.to(device), **moved)


class PairData:
    """The training pairs, split into micro-batches.

    Every epoch has its own permutation; a step uses the next `batch_size x accumulation` pairs and may continue into
    the next epoch. A run can therefore resume at any step, and the pairs of a step do not depend on how it is split
    into micro-batches or over processes.

    Args:
        path: a Parquet file of the pairs table, or a folder of them.
        loaded: the model that is trained.
        config: how it is.
        seed: that of order and caption dropout.
        at_once: pairs per forward pass (see `plan_passes`); None is a whole micro-batch.

    Raises:
        TrainingError: there are no pairs, or they do not fit the model or the loss.
    """

    def __init__(
        self, path: Path, loaded: UnifiedModel, config: TrainingConfig, seed: int, at_once: int | None = None
    ) -> None:
        self._loaded, self._config, self._seed = loaded, config, seed
        self._at_once = at_once or config.batch_size
        table = _read_pairs(path, config)
        if config.max_pairs is not None and len(table) > config.max_pairs:
            drawn = np.random.default_rng(derive_seed("pairs trained on", seed)).permutation(len(table))
            table = table.take(np.sort(drawn[: config.max_pairs]))
        self._prompts: list[str] = table["prompt"].to_pylist()
        self._negatives: list[str] = table["negative_prompt"].to_pylist()
        self._tokens = [_matrix(table, name, np.uint16, loaded.geometry.tokens) for name in _TOKEN_COLUMNS]
        masks = _MASK_COLUMNS if config.loss.object_weight else ()
        self._masks = [_matrix(table, name, np.float32, loaded.geometry.tokens) for name in masks]
        largest, codes = max(int(side.max()) for side in self._tokens), loaded.geometry.codes
        if largest >= codes:
            raise TrainingError(
                f"the model has {codes} codes", field="pairs.tokens", value=largest, remedy="Use pairs of this model"
            )
        self._epoch = -1
        self._order = np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self._prompts)

    def indices(self, step: int) -> NDArray[np.int64]:
        """Return the indices of the pairs of step `step` (from 0), `[batch_size x accumulation]`."""
        size = self._config.batch_size * self._config.accumulation
        places = np.arange(step * size, (step + 1) * size)
        return np.array([self._permutation(int(place) // len(self))[place % len(self)] for place in places])

    def dropped(self, step: int) -> NDArray[np.bool_]:
        """Return whether each of the step's pairs loses its caption, `[batch_size x accumulation]`."""
        size = self._config.batch_size * self._config.accumulation
        generator = np.random.default_rng(derive_seed("caption dropout", self._seed, step))
        return generator.random(size) < self._config.caption_dropout

    def micro_batch(self, step: int, part: int) -> MicroBatch:
        """Return micro-batch `part` (of `accumulation`) of step `step` as one batch, on the CPU."""
        rows = slice(part * self._config.batch_size, (part + 1) * self._config.batch_size)
        return self._batch(self.indices(step)[rows], self.dropped(step)[rows])

    def passes(self, step: int, part: int) -> list[MicroBatch]:
        """Return a micro-batch in as many batches as its forward passes, each of pairs with prompts of similar length.

        Their losses, weighted by their pairs, add up to that of the micro-batch.
        """
        rows = slice(part * self._config.batch_size, (part + 1) * self._config.batch_size)
        pairs, dropped = self.indices(step)[rows], self.dropped(step)[rows]
        count = math.ceil(len(pairs) / self._at_once)
        order = np.array(by_length([self._prompts[index] for index in pairs]))
        return [self._batch(pairs[piece], dropped[piece]) for piece in np.array_split(order, count)]

    def _batch(self, pairs: NDArray[np.int64], dropped: NDArray[np.bool_]) -> MicroBatch:
        """Return one batch of the pairs with these indices."""
        loss = self._config.loss
        groups = [(self._prompts, 0, pairs)]
        if loss.w_simpo:
            groups.append((self._prompts, 1, pairs))
        if loss.w_cond:
            groups.append((self._negatives, 0, pairs))
        groups.append((self._prompts, 0, pairs[dropped]))
        texts = [prompts[index] for prompts, _, rows in groups for index in rows]
        model, captioned = self._loaded, len(texts) - int(dropped.sum())
        ids, attention = model.encode_prompts(texts)
        uncaptioned = model.unconditional(ids[captioned:], attention[captioned:])
        ids, attention = stack_left([(ids[:captioned], attention[:captioned]), uncaptioned], model.pad_id)
        sides = [(side, rows) for _, side, rows in groups]
        tokens = _stack(self._tokens, sides)
        return MicroBatch(
            input_ids=ids,
            attention_mask=attention,
            tokens=tokens,
            mask=_stack(self._masks, sides) if self._masks else None,
            pairs=len(pairs),
            has_rejected=bool(loss.w_simpo),
            has_negative=bool(loss.w_cond),
            dropped=torch.from_numpy(dropped),
            packing=pack(model, ids, attention, tokens),
        )

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        """Return the order of an epoch; the most recent one is cached."""
        if epoch != self._epoch:
            generator = np.random.default_rng(derive_seed("training order", self._seed, epoch))
            self._epoch, self._order = epoch, generator.permutation(len(self))
        return self._order


def _read_pairs(path: Path, config: TrainingConfig) -> pa.Table:
    """Read the columns that training needs, and check that they have no nulls."""
    masks = _MASK_COLUMNS if config.loss.object_weight else ()
    try:
        table = pq.read_table(path, columns=["prompt", "negative_prompt", *_TOKEN_COLUMNS, *masks])
    except (pa.ArrowException, OSError) as error:  # what pyarrow raises for files that are no Parquet or not there
        raise TrainingError(
            "cannot be read as pairs",
            field=str(path),
            value=str(error)[:200],
            remedy="Run again: the file is made anew",
        ) from error
    if not len(table):
        raise TrainingError("there are no pairs", field="pairs", value=str(path), remedy="Make more prompts or images")
    needed = [*_TOKEN_COLUMNS, "prompt", *masks, *(["negative_prompt"] if config.loss.w_cond else [])]
    for name in needed:
        if table[name].null_count:
            raise TrainingError(
                f"{table[name].null_count} of {len(table)} pairs have no value",
                field=f"pairs.{name}",
                remedy="Run the pairs stage again with this training configuration",
            )
    return table


def _matrix(table: pa.Table, name: str, dtype: type[np.generic], width: int) -> NDArray[np.generic]:
    """Return a list column as a matrix `[pairs, T]`."""
    column = table[name].combine_chunks()
    lengths = np.unique(column.value_lengths().to_numpy(zero_copy_only=False))
    if lengths.tolist() != [width]:
        raise TrainingError(
            f"the model has {width} tokens per picture",
            field=f"pairs.{name}",
            value=lengths.tolist()[:5],
            remedy="Use pairs that were rendered by this model",
        )
    return np.ascontiguousarray(column.flatten().to_numpy().reshape(-1, width).astype(dtype))


def _stack(sides: Sequence[NDArray[np.generic]], groups: Sequence[tuple[int, NDArray[np.int64]]]) -> torch.Tensor:
    """Return the rows of the chosen (0) or rejected (1) side of each group, stacked: `[N, T]`."""
    stacked = np.concatenate([sides[side][rows] for side, rows in groups])
    return torch.from_numpy(stacked.astype(np.int64) if stacked.dtype == np.uint16 else stacked)
