"""RMS norms that cost less to train than transformers' own (RMSNorm, arXiv 1910.07467), with the same weights.

Transformers computes a norm in six operations, and autograd runs about ten more on the way back. On GPUs torch has one
kernel for either direction; on CPUs it has none for the way back, so a function of this module takes less than half of
the time (docs/lab-notes.md).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.models.llama.modeling_llama import LlamaRMSNorm


class FusedRMSNorm(LlamaRMSNorm):
    """Transformers' norm with frozen weights; everything but `forward` is transformers'."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Return the normed states, `[..., D] -> [..., D]`."""
        if hidden_states.device.type == "cpu":
            normed: torch.Tensor = _Norm.apply(hidden_states, self.weight, self.variance_epsilon)
            return normed
        return functional.rms_norm(hidden_states, self.weight.shape, self.weight, self.variance_epsilon)


def fuse_norms(network: nn.Module) -> None:
    """Let the norms of a decoder with frozen weights compute with fewer operations."""
    for module in network.modules():
        if type(module) is LlamaRMSNorm:
            module.__class__ = FusedRMSNorm


class _Norm(torch.autograd.Function):
    """`y = w x / sqrt(mean(x^2) + epsilon)`, with the gradient for `x`; computed in float32 at least."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        exact = x if x.dtype == torch.float64 else x.float()
        size = torch.linalg.vector_norm(exact, dim=-1, keepdim=True)
        scale = size.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (exact * scale).mul_(weight).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        x, weight, scale = ctx.saved_tensors
        inward = gradients[0].to(scale.dtype) * weight
        along = torch.linalg.vecdot(inward, x.to(scale.dtype)).unsqueeze_(-1)
        along.mul_(scale).mul_(scale).div_(-x.shape[-1])
        return inward.addcmul_(x.to(scale.dtype), along).mul_(scale).to(x.dtype), None, None
