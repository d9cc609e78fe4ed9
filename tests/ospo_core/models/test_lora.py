"""The fused LoRA layers against PEFT's own."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from peft.tuners.lora import Linear
from torch import nn
from torch.utils.checkpoint import checkpoint

from ospo_core.config.sections import LoraSettings
from ospo_core.models.adapters import add_lora
from ospo_core.models.lora import AdaptedLinear, dropped_places
from tests.support.tiny_janus import load_tiny_janus

GROUPS = {"self_attn": ("q_proj", "k_proj", "v_proj"), "mlp": ("gate_proj", "up_proj")}


def adapted_layer(folder: Path, dropout: float = 0.0) -> nn.Module:
    """Return the first layer of the tiny model with an adapter that does something."""
    model = load_tiny_janus(folder)
    add_lora(model, LoraSettings(rank=4, alpha=8, dropout=dropout))
    layer: nn.Module = model.backbone.layers[0]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for name, weights in layer.named_parameters():
            if "lora_" in name:
                weights.normal_(std=0.2)
    return layer.train()


def run(layer: nn.Module, x: torch.Tensor, plain: bool) -> list[torch.Tensor]:
    """Return the outputs of all projections of shared inputs, and the gradients of the input and the adapters."""
    x = x.clone().requires_grad_()
    layer.zero_grad()
    forward = Linear.forward if plain else AdaptedLinear.forward
    outputs = [
        forward(projection, x)
        for parent, names in GROUPS.items()
        for projection in (getattr(layer.get_submodule(parent), name) for name in names)
    ]
    sum((output * (1 + index)).square().mean() for index, output in enumerate(outputs)).backward()
    assert x.grad is not None
    return [*outputs, x.grad, *(weights.grad for weights in layer.parameters() if weights.grad is not None)]


@pytest.mark.parametrize("rows", [1, 7])
def test_outputs_and_gradients_are_pefts(tiny_folder: Path, rows: int) -> None:
    layer, x = adapted_layer(tiny_folder), torch.randn(rows, 5, 32, generator=torch.Generator().manual_seed(1))
    fused, plain = run(layer, x, plain=False), run(layer, x, plain=True)
    assert len(fused) == len(plain) == 5 + 1 + 10
    for ours, theirs in zip(fused, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_dropout_acts_on_the_adapters_input_only_and_alike_for_one_input(tiny_folder: Path) -> None:
    """With the mask put back in by hand, PEFT's own layer without dropout agrees."""
    layer, x = adapted_layer(tiny_folder, dropout=0.25), torch.randn(6, 32, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(5)
    outputs = [projection(x) for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj)]
    torch.manual_seed(5)
    dropped = x.flatten().index_fill(0, dropped_places(x, 0.25), 0.0).view_as(x) / 0.75
    for projection, output in zip(("q_proj", "k_proj", "v_proj"), outputs, strict=True):
        peft = copy.deepcopy(getattr(layer.self_attn, projection)).eval()
        added = Linear.forward(peft, dropped) - peft.base_layer(dropped)
        torch.testing.assert_close(output, peft.base_layer(x) + added, rtol=1e-5, atol=1e-5)


def test_gradients_with_dropout_are_those_of_the_function(tiny_folder: Path) -> None:
    layer = adapted_layer(tiny_folder, dropout=0.25).double()

    def outputs(x: torch.Tensor, *_: torch.Tensor) -> tuple[torch.Tensor, ...]:
        torch.manual_seed(3)
        return layer.mlp.gate_proj(x), layer.mlp.up_proj(x)

    x = torch.randn(3, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    weights = [each for name, each in layer.mlp.named_parameters() if "lora_" in name and "down" not in name]
    assert len(weights) == 4
    assert torch.autograd.gradcheck(outputs, (x, *weights))


def test_no_dropout_in_evaluation(tiny_folder: Path) -> None:
    layer, x = adapted_layer(tiny_folder, dropout=0.5).eval(), torch.ones(2, 32)
    torch.testing.assert_close(layer.mlp.up_proj(x), Linear.forward(layer.mlp.up_proj, x))


def test_recomputation_drops_the_same_numbers(tiny_folder: Path) -> None:
    layer, results = adapted_layer(tiny_folder, dropout=0.5), []
    x = torch.randn(4, 32, generator=torch.Generator().manual_seed(1))
    for recompute in (False, True):
        layer.zero_grad()
        torch.manual_seed(2)
        given = x.clone().requires_grad_()
        output = checkpoint(layer.mlp, given, use_reentrant=False) if recompute else layer.mlp(given)
        output.square().sum().backward()
        results.append([output, given.grad, *(weights.grad for weights in layer.mlp.parameters())])
    for plain, again in zip(*results, strict=True):
        assert (plain is None and again is None) or plain.equal(again)


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_each_number_is_dropped_with_the_same_chance_independently(share: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(1001, 999)
    mask = x.flatten().index_fill(0, dropped_places(x, share), 0.0).view_as(x).double()
    assert mask.mean().item() == pytest.approx(1 - share, abs=2e-3)
    for other in (mask.roll(1, dims=1), mask.roll(1, dims=0), mask.roll(4, dims=1)):
        assert torch.corrcoef(torch.stack([mask.flatten(), other.flatten()]))[0, 1].abs() < 5e-3


def test_bfloat16_is_computed_in_bfloat16_with_the_adapter_in_float32(tiny_folder: Path) -> None:
    layer = adapted_layer(tiny_folder)
    exact = run(layer, torch.linspace(-1, 1, 64).view(2, 32), plain=False)
    for projection in (each for each in layer.modules() if isinstance(each, AdaptedLinear)):
        projection.base_layer.to(torch.bfloat16)
    rounded = run(layer, torch.linspace(-1, 1, 64).view(2, 32).bfloat16(), plain=False)
    assert [each.dtype for each in rounded] == [torch.bfloat16] * 6 + [torch.float32] * 10
    for ours, theirs in zip(rounded, exact, strict=True):
        torch.testing.assert_close(ours.float(), theirs, rtol=0.1, atol=0.02 * theirs.abs().max().item())
