"""Two optimisers for one model: Muon for the matrices of the transformers' layers, AdamW for everything else.

Muon (https://kellerjordan.github.io/posts/muon) makes the update of a matrix orthogonal; its rate is scaled to the
size of AdamW's updates (https://arxiv.org/abs/2502.16982), so both rates are of one order.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import JanusForConditionalGeneration


class Optimisers:
    """Muon and AdamW, stepped and saved as one; frozen parameters are left out."""

    def __init__(
        self, model: JanusForConditionalGeneration, rate: float, matrix_rate: float, weight_decay: float
    ) -> None:
        layers: list[nn.Module] = [model.model.language_model.layers, model.model.vision_model.encoder]
        inner = {id(parameter) for part in layers for parameter in part.parameters() if parameter.ndim == 2}
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        matrices = [parameter for parameter in self.parameters if id(parameter) in inner]
        others = [parameter for parameter in self.parameters if id(parameter) not in inner]
        self._each: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, lr=matrix_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=weight_decay),
        ]
        self._rates = (matrix_rate, rate)

    def step(self, share: float) -> None:
        """Take a step at a share of the highest rates, and clear the gradients."""
        for optimiser, rate in zip(self._each, self._rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * share
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict[str, Any]]:
        """Return the states of both."""
        return [optimiser.state_dict() for optimiser in self._each]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Go on from the states of both."""
        for optimiser, state in zip(self._each, states, strict=True):
            optimiser.load_state_dict(state)
