"""An optimiser step as published: a forward pass each for chosen, rejected and negative, with all logits in float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from peft import LoraConfig, get_peft_model
from torch.nn import functional

from ospo_core.config.sections import LossConfig, TrainingConfig
from ospo_core.models.base import UnifiedModel


@dataclass(frozen=True)
class Pairs:
    """Pairs to train on: `prompts` and `negatives`, `B` each, `chosen` and `rejected` tokens `int [B, T]`."""

    prompts: Sequence[str]
    negatives: Sequence[str]
    chosen: NDArray[np.uint16]
    rejected: NDArray[np.uint16]

    def __len__(self) -> int:
        """Return `B`."""
        return len(self.prompts)


class PublishedTrainer:
    """PEFT's LoRA on the language model of `model`, which is changed in place, and AdamW (paper v2).

    Args:
        model: the model.
        config: loss, adapter and optimiser.
        recompute: whether layers are computed again in the backward pass, as the published trainer does.
    """

    def __init__(self, model: UnifiedModel, config: TrainingConfig, recompute: bool) -> None:
        lora = config.lora
        adapter = LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=model.lora_targets,
            bias="none",
        )
        self._model, self._config = model, config
        self.adapted = get_peft_model(model.network, adapter).train()
        if recompute:
            model.backbone.gradient_checkpointing_enable({"use_reentrant": False})
        self.parameters = [weights for weights in self.adapted.parameters() if weights.requires_grad]
        self._optimizer = torch.optim.AdamW(
            self.parameters, lr=config.learning_rate, betas=config.adam_betas, weight_decay=0.0
        )

    def step(self, pairs: Pairs) -> float:
        """Make one optimiser step; return its loss."""
        self._optimizer.zero_grad(set_to_none=True)
        loss = self.loss(pairs)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, self._config.max_grad_norm)
        self._optimizer.step()
        return float(loss.detach())

    def loss(self, pairs: Pairs) -> torch.Tensor:
        """Return the mean loss of the pairs, three forward passes (docs/method.md, section 4.1)."""
        loss: LossConfig = self._config.loss
        chosen = self._mean_logprob(pairs.prompts, pairs.chosen)
        rejected = self._mean_logprob(pairs.prompts, pairs.rejected)
        negative = self._mean_logprob(pairs.negatives, pairs.chosen)
        image = -functional.logsigmoid(loss.beta_simpo * (chosen - rejected) - loss.gamma_simpo)
        text = -functional.logsigmoid(loss.beta_cond * (chosen - negative) - loss.gamma_cond)
        return (loss.w_simpo * image + loss.w_cond * text - loss.w_sft * chosen).mean()

    def _mean_logprob(self, prompts: Sequence[str], images: NDArray[np.uint16]) -> torch.Tensor:
        """Return `l(y|x)`, `[B]`."""
        model = self._model
        ids, mask = (half.to(model.device) for half in model.encode_prompts(prompts))
        tokens = torch.from_numpy(images.astype(np.int64)).to(model.device)
        image = model.embed_image(tokens)
        mask = torch.cat([mask, mask.new_ones(image.shape[:2])], dim=1)
        states = model.backbone(
            inputs_embeds=torch.cat([model.embed_text(ids), image], dim=1),
            attention_mask=mask,
            position_ids=(mask.cumsum(dim=-1) - 1).clamp(min=0),
            use_cache=False,
        ).last_hidden_state
        logits = model.image_logits(states[:, ids.shape[1] - 1 : -1], tokens[:, :-1]).float()
        return logits.log_softmax(dim=-1).gather(-1, tokens[..., None])[..., 0].mean(dim=-1)
