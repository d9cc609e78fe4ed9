"""The fused parts of a Llama against transformers' own."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaMLP, LlamaRMSNorm

from ospo_core.config.sections import LoraSettings
from ospo_core.models import fused as fused_module
from ospo_core.models import lora
from ospo_core.models.attention import object_masks
from ospo_core.models.decoder import is_plain
from ospo_core.models.fused import FusedAttention, FusedMLP, FusedRMSNorm, fuse_layers, suit_gpu
from ospo_core.models.janus.model import JanusModel
from ospo_core.training import policy as policy_module
from ospo_core.training.data import PairData
from ospo_core.training.policy import batch_loss, build_policy, seeded, trainable
from tests.ospo_core.training.jobs import config, write_pairs
from tests.support.tiny_janus import TOKENS, load_tiny_janus


def norms(dtype: torch.dtype) -> tuple[LlamaRMSNorm, LlamaRMSNorm]:
    """Return a norm with frozen weights, and the same one fused."""
    plain = LlamaRMSNorm(24, eps=1e-5).to(dtype).requires_grad_(False)
    plain.weight.copy_(torch.linspace(0.5, 2.0, 24))
    network = torch.nn.Sequential(copy.deepcopy(plain))
    fuse_layers(network)
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


def llamas(folder: Path) -> tuple[JanusModel, JanusModel]:
    """Return the tiny model, and the same with fused layers."""
    plain, fused = load_tiny_janus(folder), load_tiny_janus(folder)
    fuse_layers(fused.backbone)
    kinds = {type(module) for module in fused.backbone.modules()}
    assert {FusedRMSNorm, FusedAttention, FusedMLP} < kinds and not {LlamaRMSNorm, LlamaAttention, LlamaMLP} & kinds
    return plain, fused


def test_layers_continue_a_sequence_as_those_of_transformers(tiny_folder: Path) -> None:
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
    states = []
    for model in llamas(tiny_folder):
        assert is_plain(model.backbone)
        begun = model.backbone(inputs_embeds=model.embed_text(ids), use_cache=True)
        after = model.backbone(inputs_embeds=model.embed_text(ids[:, :2]), past_key_values=begun.past_key_values)
        states.append([begun.last_hidden_state, after.last_hidden_state])
    for ours, theirs in zip(*reversed(states), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_layers_give_the_weights_of_attention_where_they_are_asked_for(tiny_folder: Path) -> None:
    prompts, tokens = ["a red circle"], np.zeros((1, TOKENS), dtype=np.uint16)
    plain, fused = (object_masks(model, prompts, [["circle"]], tokens) for model in llamas(tiny_folder))
    np.testing.assert_allclose(fused, plain, atol=1e-4)


@pytest.mark.parametrize("recompute", [False, True])
def test_losses_and_gradients_are_those_of_plain_layers(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recompute: bool
) -> None:
    """Fused layers, and dropout by a mask, as on a GPU."""
    options = config(lora=LoraSettings(rank=4, alpha=8, dropout=0.3), caption_dropout=0.4, batch_size=8)
    pairs, results = write_pairs(tmp_path / "pairs.parquet"), []
    for number, model in enumerate(llamas(tiny_folder)):
        if not number:
            monkeypatch.setattr(policy_module, "fuse_layers", lambda network: None)
        policy = build_policy(model, options, seed=3, recompute=recompute)
        monkeypatch.undo()
        with torch.no_grad():
            for weights in trainable(policy).values():
                weights.fill_(0.01)
        batch = PairData(pairs, model, options, seed=3).micro_batch(0, 0)
        assert len(batch.packing.repeated)
        if number:
            monkeypatch.setattr(lora, "drawn_dropout", lambda x, share: ~_cleared(x, share))
        with seeded(model.device, "dropout"):
            loss = batch_loss(policy, batch, options.loss)[0].total
        loss.backward()
        results.append([loss, *(weights.grad for weights in trainable(policy).values())])
    for ours, theirs in zip(*reversed(results), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_network_is_suited_to_a_gpu(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU in the place of a GPU: its layers are fused, and torch is told not to plan attention."""
    told: list[bool] = []
    monkeypatch.setattr(torch.backends.cuda, "enable_cudnn_sdp", told.append)
    model = load_tiny_janus(tiny_folder)
    assert not told
    suit_gpu(model.backbone)
    assert told == [False] and type(model.backbone.layers[0].self_attn) is FusedAttention


def _cleared(x: torch.Tensor, share: float) -> torch.Tensor:
    """Return as a mask what dropout clears on a CPU."""
    cleared = torch.zeros(x.numel(), dtype=torch.bool)
    cleared[lora.dropped_places(x, share)] = True
    return cleared.view_as(x)


def test_rotations_and_gates_have_the_gradients_of_their_functions() -> None:
    generator = torch.Generator().manual_seed(0)
    states, gate, up = (torch.randn(2, 3, 4, 6, dtype=torch.float64, generator=generator) for _ in range(3))
    angles = torch.randn(1, 3, 3, dtype=torch.float64, generator=generator).repeat(1, 1, 2)
    assert torch.autograd.gradcheck(fused_module._Rotation.apply, (states.requires_grad_(), angles.cos(), angles.sin()))
    assert torch.autograd.gradcheck(fused_module._Gate.apply, (gate.requires_grad_(), up.requires_grad_()))
