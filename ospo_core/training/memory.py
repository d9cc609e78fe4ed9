"""How training fits a device: how many pairs share a forward pass, and whether activations are recomputed.

Memory is estimated from shapes; rows that begin alike are counted as if they did not. The estimate covers tensors only:
a CUDA context and the allocator's fragments come on top, for which `_USABLE` leaves room.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import psutil
import torch

from ospo_core.config.sections import TrainingConfig
from ospo_core.errors import TrainingError
from ospo_core.models.base import UnifiedModel
from ospo_core.models.logprobs import rows_at_once

POSITIONS_AT_ONCE = {"cpu": 8192, "cuda": 16_384}
"""Most positions of a forward pass, with `_PROMPT` for a prompt, by device: the more there are, the less counts what an
operator costs beside its work (docs/lab-notes.md, docs/results.md)."""
_ENOUGH = 4096
"""Positions of a forward pass with which a GPU is faster than with more of them whose activations are recomputed."""
_PROMPT = 64
"""Positions of a prompt: training uses the short ones."""
_ADAPTER = 20
"""Bytes per trained parameter: weight, gradient, its copy for sending, and two moments, all in float32."""
_BACKWARD = 4 / 3
"""A recomputed layer's activations with the gradients that exist beside them, relative to the activations."""
_USABLE = 0.85


@dataclass(frozen=True)
class Passes:
    """How a micro-batch is computed.

    Attributes:
        pairs: pairs per forward pass; the last one may have fewer.
        recompute: whether activations are recomputed (gradient checkpointing).
        memory: estimated peak of tensors, bytes per device.
    """

    pairs: int
    recompute: bool
    memory: int


def plan_passes(config: TrainingConfig, model: UnifiedModel, available: int) -> Passes:
    """Return how a micro-batch is computed on a device with `available` bytes in all.

    It depends on the size of the device, not on what else uses it. Activations are kept where that leaves room for
    passes that use the device well, unless the configuration decides; passes are as large as fit.

    Raises:
        TrainingError: not even one pair fits.
    """
    most = _pairs(config, model, POSITIONS_AT_ONCE.get(model.device.type, POSITIONS_AT_ONCE["cuda"]))
    enough = _pairs(config, model, _ENOUGH)
    choices = {
        "auto": [(most, enough, False), (most, 1, True)],
        True: [(most, 1, True)],
        False: [(most, 1, False)],
    }[config.gradient_checkpointing]
    for largest, smallest, recompute in choices:
        for pairs in range(largest, smallest - 1, -1):
            needed = training_memory(config, model, pairs, recompute)
            if needed <= _USABLE * available:
                return Passes(pairs, recompute, needed)
    if needed <= available:
        return Passes(pairs, recompute, needed)
    remedy = "Use a device with more memory, training.dtype=bfloat16 or a smaller training.lora.rank"
    raise TrainingError(
        f"training one pair at a time needs about {needed / 1e9:.1f} GB, but the device has {available / 1e9:.1f} GB",
        field="training",
        remedy=remedy if recompute else f"Set training.gradient_checkpointing=auto. {remedy}",
    )


def training_memory(config: TrainingConfig, model: UnifiedModel, pairs: int, recompute: bool) -> int:
    """Return the peak of tensors in training, bytes per device.

    Args:
        config: loss and adapter.
        model: the model, of the type that training uses; on `meta` it needs no memory itself.
        pairs: pairs per forward pass.
        recompute: whether activations are recomputed.
    """
    figures, geometry = model.memory, model.geometry
    sequences = _sequences(config, pairs)
    positions = sequences * (_PROMPT + geometry.tokens)
    if recompute:
        kept = positions * (figures.layer_inputs + _BACKWARD * figures.activations / figures.layers)
    else:
        kept = positions * figures.activations
    rows = min(sequences, rows_at_once(geometry.tokens, geometry.codes))
    head = rows * geometry.tokens * geometry.codes * model.dtype.itemsize
    adapter = _ADAPTER * config.lora.rank * figures.adapter_per_rank
    return round(figures.weights + adapter + kept + head)


def device_memory(device: torch.device) -> int:
    """Return all memory of a device, used or not: that of the GPU, or this machine's."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().total)


def _pairs(config: TrainingConfig, model: UnifiedModel, positions: int) -> int:
    """Return how many pairs of a micro-batch have no more positions than that; at least one."""
    sequences = 1 + bool(config.loss.w_simpo) + bool(config.loss.w_cond) + config.caption_dropout
    return min(config.batch_size, max(1, int(positions / (sequences * (_PROMPT + model.geometry.tokens)))))


def _sequences(config: TrainingConfig, pairs: int) -> int:
    """Return the sequences of a forward pass of `pairs`; dropped captions add as many as a run hardly ever exceeds."""
    share, loss = config.caption_dropout, config.loss
    dropped = min(pairs, math.ceil(share * pairs + 3 * math.sqrt(pairs * share * (1 - share))))
    return pairs * (1 + bool(loss.w_simpo) + bool(loss.w_cond)) + dropped
