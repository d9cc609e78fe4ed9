"""Noise that belongs to a row: a function of the row's seed, the step and the code, and of nothing else.

A counter-based generator: the same numbers come out whatever the batch, its order, the device or the number of threads,
without a state to keep and without waiting for the host. Seed, step and code are mixed by the finaliser of SplitMix64
(Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014, with Stafford's constants, variant 13),
in 64-bit integers that wrap around.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

_STEP, _CODE = 0x9E3779B97F4A7C15, 0xD1342543DE82EF95
"""Odd strides of the counters: the golden ratio of SplitMix64, and the multiplier of L'Ecuyer's and Steele's LXM."""
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_LARGEST = 1.0 - 2.0**-24


def row_keys(seeds: Sequence[int], device: torch.device) -> torch.Tensor:
    """Return a key for each of the seeds in [0, 2**64), `int64 [B]` on the device."""
    return _mixed(torch.tensor([_signed(int(seed)) for seed in seeds], dtype=torch.int64)).to(device)


def uniform(keys: torch.Tensor, step: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """Return numbers in (0, 1), `float32 [B, K]`; small ones keep their relative precision.

    Args:
        keys: `int64 [B]`, see `row_keys`.
        step: `int64 [1]`, the number of the step, from 0; it is not read by the host.
        codes: `int64 [K]`, the codes.
    """
    rows = _mixed(keys[:, None] + _signed(_STEP) * (step + 1))
    bits = _mixed(rows + _signed(_CODE) * (codes + 1))
    return _shifted(bits, 1).float().mul_(2.0**-63).clamp_(min=2.0**-64, max=_LARGEST)


def gumbel(keys: torch.Tensor, step: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """Return Gumbel noise `float32 [B, K]`; arguments as for `uniform`.

    The largest numbers, which decide, come from the smallest uniform ones: `-log(-log(1 - u))`.
    """
    return uniform(keys, step, codes).neg_().log1p_().neg_().log_().neg_()


def _mixed(bits: torch.Tensor) -> torch.Tensor:
    """Mix 64 bits, so that every bit of the input changes half of those of the output."""
    bits = (bits ^ _shifted(bits, 30)).mul_(_signed(_FIRST))
    bits = (bits ^ _shifted(bits, 27)).mul_(_signed(_SECOND))
    return bits ^ _shifted(bits, 31)


def _shifted(bits: torch.Tensor, count: int) -> torch.Tensor:
    """Shift right and fill with zeros; torch shifts signed integers with their sign."""
    return (bits >> count).bitwise_and_((1 << (64 - count)) - 1)


def _signed(bits: int) -> int:
    """Return the signed number with the same 64 bits."""
    return bits - 2**64 if bits >= 2**63 else bits
