"""The network in training: a LoRA adapter on the language model, and the log-probabilities of a batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
from peft import PeftModel
from torch import nn

from ospo_core.artifacts.ids import derive_seed
from ospo_core.config.sections import LossConfig, TrainingConfig
from ospo_core.models.adapters import add_lora
from ospo_core.models.base import UnifiedModel
from ospo_core.models.fused import fuse_layers
from ospo_core.models.logprobs import image_token_logprobs
from ospo_core.models.packing import Packing, packed_attention
from ospo_core.training.data import MicroBatch
from ospo_core.training.losses import LossParts, ospo_loss, weighted_mean_logprob


class Policy(nn.Module):
    """The model with its adapter (`adapted`, the parameters): one forward pass per batch, as data parallelism needs."""

    def __init__(self, model: UnifiedModel, adapted: PeftModel, object_weight: float) -> None:
        super().__init__()
        self._model, self.adapted, self._object_weight = model, adapted, object_weight

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        tokens: torch.Tensor,
        mask: torch.Tensor | None,
        packing: Packing | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return `l(y|x)` of every sequence, plain and object-weighted, both `[N]`; shapes as in `MicroBatch`.

        The weighted one is None where there are no object weights.
        """
        token_logprobs = image_token_logprobs(self._model, input_ids, attention_mask, tokens, packing)
        plain = weighted_mean_logprob(token_logprobs)
        if mask is None or self._object_weight == 0.0:
            return plain, None
        return plain, weighted_mean_logprob(token_logprobs, mask, self._object_weight)


@contextmanager
def seeded(device: torch.device, *parts: str | int) -> Iterator[None]:
    """Seed torch's generators inside the block, and restore them afterwards."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derive_seed(*parts))
        yield


def build_policy(loaded: UnifiedModel, config: TrainingConfig, seed: int, recompute: bool = False) -> Policy:
    """Add a new adapter, initialised from `seed`, to the model and switch it to training mode.

    With `recompute`, each layer of the language model keeps its input only, and is computed again in the backward pass
    with the same dropout (gradient checkpointing, arXiv 1604.06174).
    """
    fuse_layers(loaded.backbone)
    adapted = add_lora(loaded, config.lora, derive_seed("lora initialisation", seed))
    if recompute:
        again = partial(packed_attention, loaded.backbone)
        loaded.backbone.gradient_checkpointing_enable(
            {"use_reentrant": False, "context_fn": lambda: (nullcontext(), again())}
        )
    return Policy(loaded, adapted, config.loss.object_weight).train()


def trainable(policy: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained, by name."""
    return {name: parameter for name, parameter in policy.named_parameters() if parameter.requires_grad}


def batch_loss(policy: nn.Module, batch: MicroBatch, config: LossConfig) -> tuple[LossParts, dict[str, torch.Tensor]]:
    """Run one forward pass; return the loss, and the detached mean log-probabilities by name.

    The log-probabilities are those of the preference terms, object-weighted where the loss is; the third group's are
    those of the chosen image under the negative prompt. The SFT term uses plain means (paper v3). A pair whose caption
    was dropped keeps its preference terms; only its SFT term becomes `-l(y_w)`.
    """
    plain, weighted = policy(batch.input_ids, batch.attention_mask, batch.tokens, batch.mask, batch.packing)
    full = 1 + batch.has_rejected + batch.has_negative
    sizes = [batch.pairs] * full + [len(batch.tokens) - full * batch.pairs]  # the last group: the dropped captions
    plain_groups = plain.split(sizes)
    groups = iter(plain_groups if weighted is None else weighted.split(sizes))
    chosen = next(groups)
    rejected = next(groups) if batch.has_rejected else None
    negative = next(groups) if batch.has_negative else None
    sft = plain_groups[0].masked_scatter(batch.dropped, plain_groups[-1])
    parts = ospo_loss(chosen, rejected, negative, config, sft)
    named = {"chosen_logprob": chosen, "rejected_logprob": rejected, "conditional_logprob": negative}
    return parts, {name: values.detach().mean() for name, values in named.items() if values is not None}
