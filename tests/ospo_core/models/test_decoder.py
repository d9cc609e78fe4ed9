from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import nn

from ospo_core.config.sections import LoraSettings
from ospo_core.models.adapters import add_lora
from ospo_core.models.decoder import Decoder, LlamaDecoder, PlainDecoder, is_plain, llama_weights
from ospo_core.models.janus.model import JanusModel
from ospo_core.models.sequences import stack_left
from tests.support.tiny_janus import load_tiny_janus

STEPS = 12


@pytest.fixture
def fresh(tiny_folder: Path) -> JanusModel:
    """A model of its own, for tests that change it."""
    return load_tiny_janus(tiny_folder)


def prompt_rows(model: JanusModel, prompts: list[str], guided: bool) -> tuple[torch.Tensor, torch.Tensor]:
    ids, mask = model.encode_prompts(prompts)
    return stack_left([(ids, mask), model.unconditional(ids, mask)], model.pad_id) if guided else (ids, mask)


def states(decoder: Decoder, ids: torch.Tensor, mask: torch.Tensor, hidden: int, steps: int = STEPS) -> torch.Tensor:
    """Return the state after the prompts and after every step of made-up positions, `[steps + 1, R, D]`."""
    made_up = torch.randn((steps, len(ids), 1, hidden), generator=torch.Generator().manual_seed(1))
    decoder.begin(ids, mask)
    found = [decoder.state.clone()]
    for position in made_up.to(decoder.state.dtype):
        decoder.step(position)
        found.append(decoder.state.clone())
    return torch.stack(found)


@pytest.mark.parametrize("segment", [1, 8, 128])
@pytest.mark.parametrize("guided", [False, True], ids=["plain", "guided"])
@pytest.mark.parametrize("count", [1, 3, 4])
@torch.inference_mode()
def test_states_are_those_of_transformers(
    tiny: JanusModel, prompts: list[str], count: int, guided: bool, segment: int
) -> None:
    ids, mask = prompt_rows(tiny, prompts[:count], guided)
    weights = llama_weights(tiny.backbone)
    assert weights is not None
    fast = LlamaDecoder(tiny, weights, len(ids), ids.shape[1] + STEPS, segment)
    expected = states(PlainDecoder(tiny), ids, mask, weights.hidden)
    assert torch.allclose(states(fast, ids, mask, weights.hidden), expected, atol=1e-5)
    again = states(fast, ids.flip(0), mask.flip(0), weights.hidden, 2)  # in memory that was used before
    assert torch.allclose(again, states(PlainDecoder(tiny), ids.flip(0), mask.flip(0), weights.hidden, 2), atol=1e-5)


@pytest.mark.parametrize("segment", [1, 8])
@torch.inference_mode()
def test_in_bfloat16_they_are_no_further_from_float32_than_those_of_transformers(
    fresh: JanusModel, prompts: list[str], segment: int
) -> None:
    ids, mask = fresh.encode_prompts(prompts)
    exact = states(PlainDecoder(fresh), ids, mask, fresh.backbone.config.hidden_size)
    fresh.network.to(torch.bfloat16)
    weights = llama_weights(fresh.backbone)
    assert weights is not None
    decoders = [PlainDecoder(fresh), LlamaDecoder(fresh, weights, len(ids), ids.shape[1] + STEPS, segment)]
    theirs, ours = ((states(one, ids, mask, weights.hidden).float() - exact).abs().mean() for one in decoders)
    assert 0 < ours < 1.2 * theirs


@torch.inference_mode()
def test_several_positions_and_none_can_be_appended_at_once(tiny: JanusModel, prompts: list[str]) -> None:
    ids, mask = tiny.encode_prompts(prompts)
    weights = llama_weights(tiny.backbone)
    assert weights is not None
    positions = torch.randn((len(ids), 3, weights.hidden), generator=torch.Generator().manual_seed(1))
    decoders = [PlainDecoder(tiny), LlamaDecoder(tiny, weights, len(ids), ids.shape[1] + 3)]
    for decoder in decoders:
        decoder.begin(ids, mask)
        decoder.step(positions[:, :0])
        decoder.step(positions)
    assert torch.allclose(decoders[0].state, decoders[1].state, atol=1e-5)
    assert decoders[0].width == decoders[1].width == ids.shape[1] + 3


@torch.inference_mode()
def test_fewer_heads_of_keys_than_of_queries(fresh: JanusModel, prompts: list[str]) -> None:
    config = fresh.backbone.config
    config.num_key_value_heads = 1
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        torch.manual_seed(0)
        fresh.network.model.language_model = type(fresh.backbone)(config).eval().requires_grad_(False)
    ids, mask = prompt_rows(fresh, prompts, guided=True)
    weights = llama_weights(fresh.backbone)
    assert weights is not None
    fast = LlamaDecoder(fresh, weights, len(ids), ids.shape[1] + STEPS)
    expected = states(PlainDecoder(fresh), ids, mask, weights.hidden)
    assert torch.allclose(states(fast, ids, mask, weights.hidden), expected, atol=1e-5)


def test_joined_projections_take_no_memory_of_their_own_and_follow_the_network(fresh: JanusModel) -> None:
    weights = llama_weights(fresh.backbone)
    assert weights is not None
    attention, joined = fresh.backbone.layers[1].self_attn, weights.layers[1].qkv
    assert attention.k_proj.weight.untyped_storage().data_ptr() == joined.untyped_storage().data_ptr()
    assert llama_weights(fresh.backbone) is weights
    with torch.no_grad():
        attention.k_proj.weight.fill_(3.0)
    assert joined[len(attention.q_proj.weight)].eq(3.0).all()
    assert llama_weights(fresh.backbone) is not weights, "what was made of them may not follow"
    attention.v_proj.weight = nn.Parameter(torch.zeros_like(attention.v_proj.weight))
    other = llama_weights(fresh.backbone)
    assert other is not None and other is not weights
    assert not other.layers[1].qkv[-1].any()


def test_a_network_that_was_used_can_be_trained_and_saved(fresh: JanusModel, tmp_path: Path) -> None:
    before = {name: weights.clone() for name, weights in fresh.network.state_dict().items()}
    assert llama_weights(fresh.backbone) is not None
    fresh.network.save_pretrained(tmp_path / "saved")
    after = load_saved(fresh, tmp_path / "saved")
    assert all(after[name].equal(weights) for name, weights in before.items())
    fresh.backbone.requires_grad_(True)
    fresh.backbone(inputs_embeds=torch.ones((1, 2, 32))).last_hidden_state.sum().backward()
    assert fresh.backbone.layers[0].self_attn.k_proj.weight.grad is not None


def load_saved(model: JanusModel, folder: Path) -> dict[str, torch.Tensor]:
    return dict(type(model.network).from_pretrained(folder).state_dict())


def test_threads_may_ask_for_different_numbers_of_rotations(fresh: JanusModel) -> None:
    """Batches that are computed side by side have prompts of different lengths."""
    weights = llama_weights(fresh.backbone)
    assert weights is not None

    def ask(lengths: tuple[int, ...]) -> set[tuple[int, int]]:
        return {(length, len(weights.rotations(length)[0])) for _ in range(500) for length in lengths}

    with ThreadPoolExecutor(2) as pool:
        asked = list(pool.map(ask, [(16, 32), (48, 16)]))
    assert asked == [{(16, 16), (32, 32)}, {(48, 48), (16, 16)}]


def adapter(model: JanusModel) -> None:
    add_lora(model, LoraSettings(rank=2, alpha=4, dropout=0.0))


def hook(model: JanusModel) -> None:
    model.backbone.layers[0].register_forward_hook(lambda *args: None)


def training(model: JanusModel) -> None:
    model.backbone.train()


def activation(model: JanusModel) -> None:
    model.backbone.config.hidden_act = "gelu"


@pytest.mark.parametrize("change", [adapter, hook, training, activation])
def test_anything_but_a_plain_llama_is_left_to_transformers(
    fresh: JanusModel, change: Callable[[JanusModel], None]
) -> None:
    assert is_plain(fresh.backbone)
    change(fresh)
    assert llama_weights(fresh.backbone) is None


@torch.no_grad()
def test_what_transformers_itself_hooks_in_does_not_count(fresh: JanusModel) -> None:
    fresh.backbone(inputs_embeds=torch.ones((1, 2, 32)), output_hidden_states=True)
    assert any(module._forward_hooks for module in fresh.backbone.modules())
    assert is_plain(fresh.backbone)
