"""Memory that training takes on each device, estimated from shapes, and what follows from it.

Rows that begin alike are counted as if they did not. Not measured on a GPU since passes and layers have been what they
are; the former ones took more (docs/results.md). The estimate covers tensors only: a CUDA context and the allocator's
fragments come on top, for which `_USABLE` leaves room.
"""

from __future__ import annotations

import math

import psutil
import torch

from ospo_core.config.sections import TrainingConfig
from ospo_core.errors import TrainingError
from ospo_core.models.base import UnifiedModel
from ospo_core.models.logprobs import rows_at_once

POSITIONS_AT_ONCE = 4096
"""Positions of a forward pass, with `_PROMPT` for a prompt: enough for a GPU, and not much for a CPU's caches."""
_PROMPT = 64
"""Positions of a prompt: training uses the short ones."""
_ADAPTER = 20
"""Bytes per trained parameter: weight, gradient, its copy for sending, and two moments, all in float32."""
_BACKWARD = 4 / 3
"""A recomputed layer's activations with the gradients that exist beside them, relative to the activations."""
_USABLE = 0.85


def pairs_at_once(config: TrainingConfig, tokens: int) -> int:
    """Return how many pairs share a forward pass, whatever the micro-batch; `tokens` are those of a picture."""
    sequences = 1 + bool(config.loss.w_simpo) + bool(config.loss.w_cond) + config.caption_dropout
    return min(config.batch_size, max(1, int(POSITIONS_AT_ONCE / (sequences * (_PROMPT + tokens)))))


def training_memory(config: TrainingConfig, model: UnifiedModel, recompute: bool) -> int:
    """Return the peak of tensors in training, bytes per device.

    Args:
        config: batch size, loss and adapter.
        model: the model, of the type that training uses; on `meta` it needs no memory itself.
        recompute: whether activations are recomputed (gradient checkpointing).
    """
    figures, geometry = model.memory, model.geometry
    sequences = _sequences(config, pairs_at_once(config, geometry.tokens))
    positions = sequences * (_PROMPT + geometry.tokens)
    if recompute:
        kept = positions * (figures.layer_inputs + _BACKWARD * figures.activations / figures.layers)
    else:
        kept = positions * figures.activations
    rows = min(sequences, rows_at_once(geometry.tokens, geometry.codes))
    head = rows * geometry.tokens * geometry.codes * model.dtype.itemsize
    adapter = _ADAPTER * config.lora.rank * figures.adapter_per_rank
    return round(figures.weights + adapter + kept + head)


def recomputes(config: TrainingConfig, model: UnifiedModel, available: int) -> bool:
    """Return whether activations are recomputed on a device with `available` bytes in all.

    It depends on the size of the device, not on what else uses it.
    """
    if config.gradient_checkpointing != "auto":
        return config.gradient_checkpointing
    return training_memory(config, model, recompute=False) > _USABLE * available


def check_training_memory(config: TrainingConfig, model: UnifiedModel, available: int) -> None:
    """Check that training can fit a device with `available` bytes in all.

    Raises:
        TrainingError: it cannot.
    """
    recompute = recomputes(config, model, available)
    needed = training_memory(config, model, recompute)
    if needed <= available:
        return
    pairs = pairs_at_once(config, model.geometry.tokens)
    smaller = "Use a device with more memory, training.dtype=bfloat16 or a smaller training.lora.rank"
    if pairs > 1:
        smaller = f"Set training.batch_size below {pairs} and raise training.accumulation by the same factor"
    raise TrainingError(
        f"training needs about {needed / 1e9:.1f} GB, but the device has {available / 1e9:.1f} GB",
        field="training.batch_size",
        value=config.batch_size,
        remedy=smaller if recompute else f"Set training.gradient_checkpointing=auto. {smaller}",
    )


def device_memory(device: torch.device) -> int:
    """Return all memory of a device, used or not: that of the GPU, or this machine's."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().total)


def _sequences(config: TrainingConfig, pairs: int) -> int:
    """Return the sequences of a forward pass of `pairs`; dropped captions add as many as a run hardly ever exceeds."""
    share, loss = config.caption_dropout, config.loss
    dropped = min(pairs, math.ceil(share * pairs + 3 * math.sqrt(pairs * share * (1 - share))))
    return pairs * (1 + bool(loss.w_simpo) + bool(loss.w_cond)) + dropped
