"""Parts of a Llama that cost less than transformers' own, with the same weights and, but for rounding, results.

Transformers computes norms, rotations of queries and keys, and gates from single operators, each of which reads and
writes all states, and autograd runs about twice as many on the way back: on a GPU they took a quarter of a training
step (docs/lab-notes.md). Here each part is one node of autograd, which keeps its inputs alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional
from transformers.activations import SiLUActivation
from transformers.cache_utils import Cache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaMLP, LlamaRMSNorm, eager_attention_forward


class FusedRMSNorm(LlamaRMSNorm):
    """RMS norm (arXiv 1910.07467) with frozen weights; everything but `forward` is transformers'.

    On GPUs torch has one kernel for either direction; on CPUs it has none for the way back, so a function of this
    module takes less than half of the time.
    """

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Return the normed states, `[..., D] -> [..., D]`."""
        if hidden_states.device.type == "cpu":
            normed: torch.Tensor = _Norm.apply(hidden_states, self.weight, self.variance_epsilon)
            return normed
        return functional.rms_norm(hidden_states, self.weight.shape, self.weight, self.variance_epsilon)


class FusedAttention(LlamaAttention):
    """Attention whose queries and keys are rotated (arXiv 2104.09864) before heads and positions change places."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        **options: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the attended states `[B, P, D]` and the weights, if the attention in use gives them."""
        cos, sin = cast(tuple[torch.Tensor, torch.Tensor], position_embeddings)
        query, key, value = (
            projection(hidden_states).unflatten(-1, (-1, self.head_dim))
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        query, key = (_Rotation.apply(states, cos, sin).transpose(1, 2) for states in (query, key))
        value = value.transpose(1, 2)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        kind = self.config._attn_implementation
        attend: Callable[..., Any] = eager_attention_forward if kind == "eager" else ALL_ATTENTION_FUNCTIONS[kind]
        attended, weights = attend(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            **options,
        )
        output: torch.Tensor = self.o_proj(attended.reshape(*hidden_states.shape[:-1], -1))
        return output, weights


class FusedMLP(LlamaMLP):
    """The feed-forward layers with SiLU, whose gate is computed again for the gradient."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output, `[..., D] -> [..., D]`."""
        output: torch.Tensor = self.down_proj(_Gate.apply(self.gate_proj(x), self.up_proj(x)))
        return output


def fuse_layers(network: nn.Module) -> None:
    """Let the norms, the attention and the feed-forward layers of a Llama compute with fewer operations.

    Weights of norms get no gradient from then on.
    """
    for module in network.modules():
        if type(module) is LlamaRMSNorm:
            module.__class__ = FusedRMSNorm
        elif type(module) is LlamaAttention:
            module.__class__ = FusedAttention
        elif type(module) is LlamaMLP and isinstance(module.act_fn, nn.SiLU | SiLUActivation):
            module.__class__ = FusedMLP


def suit_gpu(network: nn.Module) -> None:
    """Let a network on a GPU compute with fused layers, and without plans of attention for every new shape.

    cuDNN, which torch prefers on new GPUs, plans forward and backward for 0.07 s each where it sees a shape for the
    first time (docs/lab-notes.md), as nearly every batch has one; the others need no plan. It holds for the process.
    """
    fuse_layers(network)
    torch.backends.cuda.enable_cudnn_sdp(False)


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


class _Rotation(torch.autograd.Function):
    """`(a, b) -> (a cos - b sin, b cos + a sin)` for the halves of each head; the gradient is turned back.

    States are `[B, P, heads, head size]`, cosines and sines `[B or 1, P, head size]`, whose halves are equal.
    """

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(states, cos, sin)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turned(gradients[0], cos, -sin), None, None


def _turned(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    half = states.shape[-1] // 2
    cos, sin = cos[..., None, :half], sin[..., None, :half]
    turned = torch.empty(states.shape, dtype=states.dtype, device=states.device)
    (first, second), (new_first, new_second) = states.split(half, dim=-1), turned.split(half, dim=-1)
    torch.mul(first, cos, out=new_first).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=new_second).addcmul_(first, sin)
    return turned


class _Gate(torch.autograd.Function):
    """`silu(gate) * up`, which keeps nothing but its inputs."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        return functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gate, up = ctx.saved_tensors
        of_gate = torch.ops.aten.silu_backward(gradients[0] * up, gate)
        return of_gate, functional.silu(gate).mul_(gradients[0])
