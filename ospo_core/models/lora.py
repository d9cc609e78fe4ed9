"""LoRA layers that cost less to train than PEFT's own, with the same parameters (arXiv 2106.09685).

The base is frozen, so the product with it and the adapter's two make one node of autograd, which keeps the input, the
dropout mask in a byte per number, and the adapter's inner vectors. Projections of one input (query, key and value; gate
and up) share the mask and the product with their first matrices. Products have the type of the input: in bfloat16 the
adapter's weights are rounded for them and stay float32 themselves, as under autocast.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from peft.tuners.lora import Linear
from torch import nn
from torch.nn import functional

_SHARING = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Projections of one parent that transformers' decoders give the same input."""


class AdaptedLinear(Linear):
    """PEFT's adapted linear layer; everything but `forward` is PEFT's, and so is `forward` where nothing is trained."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._input = SharedInput([self])

    def share_input(self, shared: SharedInput) -> None:
        """Compute this projection together with others of the same input."""
        self._input = shared

    def forward(self, x: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        """Return the base's output with the adapter's added, `[..., in] -> [..., out]`."""
        if args or options or self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            return super().forward(x, *args, **options)
        return self._input.project(self, x)

    def operands(self) -> tuple[Any, Any, Any, Any]:
        """Return the base's weights and bias, and the adapter's first and second matrix."""
        base, name = cast(nn.Linear, self.get_base_layer()), self.active_adapters[0]
        return base.weight, base.bias, self.lora_A[name].weight, self.lora_B[name].weight

    def noise(self) -> tuple[float, float]:
        """Return the share of the input that dropout clears now, and the adapter's scale."""
        name = self.active_adapters[0]
        dropout = self.lora_dropout[name]
        share = dropout.p if self.training and isinstance(dropout, nn.Dropout) else 0.0
        return share, float(self.scaling[name])


class SharedInput:
    """Projections with one input: the first one asked computes all, and the others fetch theirs."""

    def __init__(self, members: list[AdaptedLinear]) -> None:
        self._members = members
        self._x: torch.Tensor | None = None
        self._waiting: dict[AdaptedLinear, torch.Tensor] = {}

    def project(self, member: AdaptedLinear, x: torch.Tensor) -> torch.Tensor:
        """Return the member's output for `x`."""
        if x is not self._x or member not in self._waiting:
            share, scale = member.noise()
            operands = [each for one in self._members for each in one.operands()]
            outputs = _Projections.apply(x, share, scale, *operands)
            self._x, self._waiting = x, dict(zip(self._members, outputs, strict=True))
        output = self._waiting.pop(member)
        if not self._waiting:
            self._x = None
        return output


def share_inputs(network: nn.Module) -> None:
    """Let the adapted projections of one input share what they have in common."""
    for parent in network.modules():
        for names in _SHARING:
            found = [each for name in names if isinstance(each := getattr(parent, name, None), AdaptedLinear)]
            shared = SharedInput(found)
            for member in found:
                member.share_input(shared)


def dropout_mask(x: torch.Tensor, share: float) -> torch.Tensor:
    """Return a mask like `x`, one byte per number: 0 with probability `share` (to 1/65536), otherwise 1.

    Drawn from torch's generator of the device, 16 random bits per number: a fifth of the time that torch's own dropout
    takes on a CPU.
    """
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64, device=x.device).random_(-(2**63), None)
    bits = words.view(torch.int16)[: x.numel()].view(x.shape)
    return (bits >= round(share * 2**16) - 2**15).view(torch.uint8)


class _Projections(torch.autograd.Function):
    """`y_i = x W_i^T + b_i + scale (drop(x) A_i^T) B_i^T`, with gradients for `x`, `A_i` and `B_i`."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, share: float, scale: float, *operands: torch.Tensor | None
    ) -> tuple[torch.Tensor, ...]:
        flat = x.flatten(0, -2)
        bases, biases, firsts, seconds = (operands[start::4] for start in range(4))
        mask = dropout_mask(flat, share) if share else None
        first = torch.cat(cast(tuple[torch.Tensor, ...], firsts)).to(x.dtype)
        inner = _masked(flat, mask) @ first.t()
        inner *= scale / (1.0 - share)
        outputs = []
        for base, bias, second, part in zip(bases, biases, seconds, _columns(inner, firsts), strict=True):
            y = functional.linear(flat, cast(torch.Tensor, base), bias)
            y.addmm_(part, cast(torch.Tensor, second).t().to(x.dtype))
            outputs.append(y.unflatten(0, x.shape[:-1]))
        ctx.save_for_backward(x, mask, inner, first, *bases, *firsts, *seconds)
        ctx.scale = scale / (1.0 - share)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, mask, inner, first, *weights = ctx.saved_tensors
        count = len(gradients)
        bases, firsts, seconds = (weights[start : start + count] for start in range(0, 3 * count, count))
        flat = x.flatten(0, -2)
        outer = [gradient.flatten(0, -2) for gradient in gradients]
        inward = torch.empty_like(inner)
        of_seconds = []
        for gradient, second, part, into in zip(
            outer, seconds, _columns(inner, firsts), _columns(inward, firsts), strict=True
        ):
            into.copy_(gradient @ second.to(gradient.dtype))
            of_seconds.append((gradient.t() @ part).to(second.dtype))
        inward *= ctx.scale
        of_firsts = _columns((inward.t() @ _masked(flat, mask)).t(), firsts)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = inward @ first
            if mask is not None:
                of_x *= mask.to(of_x.dtype)
            for gradient, base in zip(outer, bases, strict=True):
                of_x.addmm_(gradient, base)
            of_x = of_x.view(x.shape)
        flowing = [
            each
            for a, b, like in zip(of_firsts, of_seconds, firsts, strict=True)
            for each in (None, None, a.t().to(like.dtype), b)
        ]
        return of_x, None, None, *flowing


def _masked(x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Return `x` where the mask is 1, 0 elsewhere."""
    return x if mask is None else x * mask.to(x.dtype)


def _columns(stacked: torch.Tensor, firsts: tuple[torch.Tensor | None, ...]) -> tuple[torch.Tensor, ...]:
    """Return the columns of `[N, sum of ranks]` that belong to each first matrix `[rank, in]`."""
    return stacked.split([len(cast(torch.Tensor, first)) for first in firsts], dim=1)
