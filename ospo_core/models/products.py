"""Products of few rows with weights that a CPU keeps in an order of its own.

MKL, which torch's `linear` calls, reorders the weights at every call. For the few rows of a decode step that takes
longer than the product: oneDNN with weights reordered once was 1.2 to 3 times as fast (docs/lab-notes.md). The
operators are those that torch's own compiler uses on CPUs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional
from torch.utils.weak import WeakTensorKeyDictionary

LARGEST = 2**31
"""Most bytes of weights that are kept a second time; further ones are not."""


@dataclass(frozen=True)
class _Packed:
    weight: torch.Tensor
    version: tuple[int, int]


_packed = WeakTensorKeyDictionary()


def linear(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Return `states @ weight.T + bias`, as `torch.nn.functional.linear` does, for use in inference mode.

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


def _suits(states: torch.Tensor, weight: torch.Tensor) -> bool:
    return (
        states.device.type == "cpu"
        and states.dtype == weight.dtype == torch.float32
        and torch.is_inference_mode_enabled()
        and torch.backends.mkldnn.is_available()
    )


def _pack(weight: torch.Tensor) -> torch.Tensor | None:
    """Return the weights in oneDNN's order; None where too much is kept already."""
    version = (weight.data_ptr(), 0 if weight.is_inference() else weight._version)
    known: _Packed | None = _packed.get(weight)
    if known is not None and known.version == version:
        return known.weight
    if weight.nbytes + sum(other.nbytes for other in _packed if other is not weight) > LARGEST:
        return None
    packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)
    _packed[weight] = _Packed(packed, version)
    return packed
