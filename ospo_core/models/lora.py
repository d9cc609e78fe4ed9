"""LoRA layers that cost less to train than PEFT's own, with the same parameters (arXiv 2106.09685).

The base is frozen, so the product with it and the adapter's two make one node of autograd, which keeps the input as
dropout left it, what that cleared, and the adapter's inner vectors. Projections of one input (query, key and value;
gate and up) share the dropout and the product with their first matrices. Products have the type of the input: in
bfloat16 the adapter's weights are rounded for them and stay float32 themselves, as under autocast.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from peft.tuners.lora import Linear
from torch import nn

from ospo_core.models.products import add_times_, linear

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


def drawn_dropout(x: torch.Tensor, share: float) -> torch.Tensor:
    """Return what dropout clears of `x`: the places on a CPU; `bool` like `x`, true where it stays, on a GPU.

    A GPU passes over all numbers in less time than it writes at places in no order.
    """
    if x.device.type == "cpu":
        return dropped_places(x, share)
    return torch.empty(x.shape, dtype=torch.bool, device=x.device).bernoulli_(1.0 - share)


def dropped_places(x: torch.Tensor, share: float) -> torch.Tensor:
    """Return the numbers of `x` that dropout clears, as `int64` indices into it flattened; each with chance `share`.

    They are drawn one by one, with repetition, from torch's generator of the device: so many that each number is spared
    with chance `1 - share`. On a CPU that takes a tenth of the time of drawing for every number, and a fortieth of that
    of torch's own dropout.
    """
    draws = math.ceil(-math.log1p(-share) * x.numel())
    return torch.randint(x.numel(), (draws,), device=x.device)


class _Projections(torch.autograd.Function):
    """`y_i = x W_i^T + b_i + scale (drop(x) A_i^T) B_i^T`, with gradients for `x`, `A_i` and `B_i`."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, share: float, scale: float, *operands: torch.Tensor | None
    ) -> tuple[torch.Tensor, ...]:
        flat = x.flatten(0, -2)
        bases, biases, firsts, seconds = (operands[start::4] for start in range(4))
        drawn = drawn_dropout(flat, share) if share else None
        first = torch.cat(cast(tuple[torch.Tensor, ...], firsts)).to(x.dtype)
        left = _without(flat, drawn)
        inner = left @ first.t()
        inner *= scale / (1.0 - share)
        outputs = []
        for base, bias, second, part in zip(bases, biases, seconds, _columns(inner, firsts), strict=True):
            y = linear(flat, cast(torch.Tensor, base), bias)
            y.addmm_(part, cast(torch.Tensor, second).t().to(x.dtype))
            outputs.append(y.unflatten(0, x.shape[:-1]))
        ctx.save_for_backward(left, drawn, inner, first, *bases, *firsts, *seconds)
        ctx.shape = x.shape
        ctx.scale = scale / (1.0 - share)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        left, drawn, inner, first, *weights = ctx.saved_tensors
        count = len(gradients)
        bases, firsts, seconds = (weights[start : start + count] for start in range(0, 3 * count, count))
        outer = [gradient.flatten(0, -2) for gradient in gradients]
        inward = torch.empty_like(inner)
        of_seconds = []
        for gradient, second, part, into in zip(
            outer, seconds, _columns(inner, firsts), _columns(inward, firsts), strict=True
        ):
            torch.mm(gradient, second.to(gradient.dtype), out=into)
            of_seconds.append((gradient.t() @ part).to(second.dtype))
        inward *= ctx.scale
        of_firsts = _columns((inward.t() @ left).t(), firsts)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = _without_(inward @ first, drawn)
            for gradient, base in zip(outer, bases, strict=True):
                add_times_(of_x, gradient, base)
            of_x = of_x.view(ctx.shape)
        flowing = [
            each
            for a, b, like in zip(of_firsts, of_seconds, firsts, strict=True)
            for each in (None, None, a.t().to(like.dtype), b)
        ]
        return of_x, None, None, *flowing


def _without(x: torch.Tensor, drawn: torch.Tensor | None) -> torch.Tensor:
    """Return `x` with 0 where dropout cleared it; see `drawn_dropout`."""
    if drawn is None:
        return x
    if drawn.dtype == torch.bool:
        kept: torch.Tensor = torch.ops.aten.native_dropout_backward(x, drawn, 1.0)
        return kept
    return x.flatten().index_fill(0, drawn, 0.0).view_as(x)


def _without_(x: torch.Tensor, drawn: torch.Tensor | None) -> torch.Tensor:
    """Return the same; `x` may be overwritten."""
    if drawn is None or drawn.dtype == torch.bool:
        return _without(x, drawn)
    x.view(-1).index_fill_(0, drawn, 0.0)
    return x


def _columns(stacked: torch.Tensor, firsts: tuple[torch.Tensor | None, ...]) -> tuple[torch.Tensor, ...]:
    """Return the columns of `[N, sum of ranks]` that belong to each first matrix `[rank, in]`."""
    return stacked.split([len(cast(torch.Tensor, first)) for first in firsts], dim=1)
