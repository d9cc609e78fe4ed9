"""The fused norms against transformers' own."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from ospo_core.models.norms import FusedRMSNorm, fuse_norms


def norms(dtype: torch.dtype) -> tuple[LlamaRMSNorm, LlamaRMSNorm]:
    """Return a norm with frozen weights, and the same one fused."""
    plain = LlamaRMSNorm(24, eps=1e-5).to(dtype).requires_grad_(False)
    plain.weight.copy_(torch.linspace(0.5, 2.0, 24))
    network = torch.nn.Sequential(copy.deepcopy(plain))
    fuse_norms(network)
    assert type(network[0]) is FusedRMSNorm
    return plain, network[0]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_states_and_gradients_are_those_of_transformers(dtype: torch.dtype, tolerance: float) -> None:
    states = torch.randn(3, 5, 24, generator=torch.Generator().manual_seed(0)).to(dtype)
    outward = torch.randn(3, 5, 24, generator=torch.Generator().manual_seed(1)).to(dtype)
    results = []
    for norm in norms(dtype):
        given = states.clone().requires_grad_()
        normed = norm(given)
        normed.backward(outward)
        results.append((normed, given.grad))
    for ours, theirs in zip(*results, strict=True):
        assert ours.dtype == theirs.dtype == dtype
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def test_the_gradient_is_that_of_the_function() -> None:
    _, fused = norms(torch.float64)
    states = torch.randn(4, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    assert torch.autograd.gradcheck(fused, (states,))
