"""Products with frozen weights that a CPU keeps in an order of its own.

MKL, which torch's `linear` calls, reorders the weights at every call. For the few rows of a decode step that takes
longer than the product: oneDNN with weights reordered once was 1.2 to 3 times as fast, and for the thousands of rows of
a training step 1.2 times (docs/lab-notes.md). The operators are those that torch's own compiler uses on CPUs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from threading import Lock

import torch
from torch import nn
from torch.nn import functional
from torch.utils.weak import WeakTensorKeyDictionary

LARGEST = 2**31
"""Most bytes of weights that are kept a second time; further ones are not."""


@dataclass(frozen=True)
class _Packed:
    """Weights in oneDNN's order: of themselves, and of their transpose; each once it was asked for."""

    version: tuple[int, int]
    orders: dict[bool, torch.Tensor]


_packed = WeakTensorKeyDictionary()
_packing = Lock()


def linear(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Return `states @ weight.T + bias`, as `torch.nn.functional.linear` does, faster where no gradient is recorded.

    Args:
        states: `[..., D]`.
        weight: `[N, D]`; where it was changed in place since the last call, it is reordered again.
        bias: `[N]`.
    """
    packed = _pack(weight) if _suits(states, weight) else None
    if packed is None:
        return functional.linear(states, weight, bias)
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(states, packed, bias, "none", [], "")
    return product


def add_linear(base: torch.Tensor, states: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return `base + states @ weight.T` for matrices `base` `[R, N]` and `states` `[R, D]`; otherwise as `linear`."""
    if _suits(states, weight):
        return linear(states, weight).add_(base)
    return torch.addmm(base, states, weight.T)


def add_times_(into: torch.Tensor, states: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Add `states @ weight`, which carries gradients back through `linear`, to `into` and return it.

    Args:
        into: `[R, D]`.
        states: `[R, N]`.
        weight: `[N, D]`; as in `linear`.
    """
    packed = _pack(weight, transposed=True) if _suits(states, weight) else None
    if packed is None:
        return into.addmm_(states, weight)
    return into.add_(torch.ops.mkldnn._linear_pointwise(states, packed, None, "none", [], ""))


class ReorderedLinear(nn.Linear):
    """A linear layer that computes with `linear`; everything else is torch's."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return `input @ weight.T + bias`."""
        return linear(input, self.weight, self.bias)


def reorder_linears(network: nn.Module) -> None:
    """Let all plain linear layers of a network compute with `linear`; weights and their names stay what they are."""
    for module in network.modules():
        if type(module) is nn.Linear:
            module.__class__ = ReorderedLinear


def _suits(states: torch.Tensor, weight: torch.Tensor) -> bool:
    return (
        states.device.type == "cpu"
        and states.dtype == weight.dtype
        and states.dtype in _types()
        and not torch.is_grad_enabled()
    )


@cache
def _types() -> frozenset[torch.dtype]:
    """Return the types that oneDNN multiplies on this processor by instructions of its own."""
    if not torch.backends.mkldnn.is_available():
        return frozenset()
    narrow = {torch.bfloat16} if torch.ops.mkldnn._is_mkldnn_bf16_supported() else set()
    return frozenset({torch.float32} | narrow)


def _pack(weight: torch.Tensor, transposed: bool = False) -> torch.Tensor | None:
    """Return the weights, or their transpose, in oneDNN's order; None where too much is kept already."""
    with _packing:  # threads that compute batches side by side need the same weights first
        return _packed_order(weight, transposed)


def _packed_order(weight: torch.Tensor, transposed: bool) -> torch.Tensor | None:
    version = (weight.data_ptr(), 0 if weight.is_inference() else weight._version)
    known: _Packed | None = _packed.get(weight)
    if known is None or known.version != version:
        known = _Packed(version, {})
    if transposed not in known.orders:
        others = [(other, entry) for other, entry in _packed.items() if other is not weight]
        kept = sum(other.nbytes * len(entry.orders) for other, entry in others)
        if kept + weight.nbytes * (len(known.orders) + 1) > LARGEST:
            return None
        plain = weight.detach()
        order = torch.ops.mkldnn._reorder_linear_weight(plain.t().contiguous() if transposed else plain, None)
        known.orders[transposed] = order
        _packed[weight] = known
    return known.orders[transposed]
