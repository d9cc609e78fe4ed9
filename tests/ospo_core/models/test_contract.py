"""What every model family promises: the whole pipeline relies on this, and on nothing else of a model.

A new family adds a tiny model to `FAMILIES`. `LAYOUTS` are test doubles that lay images out otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM

from ospo_core.config.sections import LoraSettings, ModelConfig
from ospo_core.errors import ModelError
from ospo_core.models import locate
from ospo_core.models.adapters import add_lora, merge_adapter, save_adapter
from ospo_core.models.attention import object_masks
from ospo_core.models.base import MAX_CODES, ImageGeometry, UnifiedModel
from ospo_core.models.export import export_text_backbone
from ospo_core.models.loading import load_model
from ospo_core.models.logprobs import image_token_logprobs, mean_logprob, run_image_sequence
from ospo_core.models.memory import memory_figures
from ospo_core.models.pictures import decode_tokens, encode_pictures, to_pixels
from ospo_core.models.sampling import sample_images
from ospo_core.models.sequences import encode_texts, positions, stack_left
from ospo_core.models.vqa import answer_questions, question_ids
from tests.support.model_layouts import load_pairs, load_row_ends
from tests.support.tiny_emu3 import make_tiny_emu3
from tests.support.tiny_janus import make_tiny_janus

FAMILIES: dict[str, Callable[[Path], Path]] = {"emu3": make_tiny_emu3, "janus": make_tiny_janus}
"""`model_type` to what writes a tiny random model of it, with a vocabulary for the prompts of the family "shapes"."""
LAYOUTS: dict[str, Callable[[Path], UnifiedModel]] = {"row ends": load_row_ends, "pairs": load_pairs}
"""Name to what loads a tiny Janus with other positions."""

PROMPTS = ["a red circle", "a blue square left of a green star on a white background", "two circles", "a star"]
SEEDS = [1, 2, 3, 2**64 - 1]
TEXTS = ["is there a star ?", "a blue square left of a red circle"]


def load(folder: Path) -> UnifiedModel:
    return load_model(folder, ModelConfig(family="shapes", device="cpu", dtype="float32"))


@pytest.fixture(scope="module", params=FAMILIES)
def shipped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> UnifiedModel:
    """A tiny model of every family."""
    return load(FAMILIES[request.param](tmp_path_factory.mktemp("shipped") / "model"))


@pytest.fixture(scope="module", params=[*FAMILIES, *LAYOUTS])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> UnifiedModel:
    """A tiny model of every family and every other layout."""
    folder = FAMILIES.get(request.param, make_tiny_janus)(tmp_path_factory.mktemp("model") / "model")
    return LAYOUTS.get(request.param, load)(folder)


@pytest.fixture(scope="module")
def tokens(model: UnifiedModel) -> NDArray[np.uint16]:
    """Random image tokens, one image per prompt."""
    shape = len(PROMPTS), model.geometry.tokens
    return np.random.default_rng(0).integers(0, model.geometry.codes, shape, dtype=np.uint16)


def as_tensor(tokens: NDArray[np.uint16]) -> torch.Tensor:
    return torch.from_numpy(tokens.astype(np.int64))


def test_every_family_of_the_registry_is_tested_here() -> None:
    assert set(locate.FAMILIES) == set(FAMILIES)


def test_the_geometry_is_consistent(model: UnifiedModel) -> None:
    geometry = model.geometry
    assert min(geometry.height, geometry.width, geometry.tokens, geometry.read_positions) > 0
    assert 1 < geometry.codes <= MAX_CODES
    assert (geometry.rows is None) == (geometry.columns is None)
    if geometry.rows and geometry.columns:
        assert geometry.rows * geometry.columns == geometry.tokens


@pytest.mark.parametrize(("codes", "columns", "problem"), [(MAX_CODES + 1, 4, "more than"), (9, 5, "do not fill")])
def test_a_geometry_that_contradicts_itself_is_refused(codes: int, columns: int, problem: str) -> None:
    with pytest.raises(ModelError, match=problem):
        ImageGeometry(32, 32, tokens=16, codes=codes, rows=4, columns=columns, read_positions=16)


def test_tokens_become_pictures_and_pictures_tokens(model: UnifiedModel, tokens: NDArray[np.uint16]) -> None:
    pictures = decode_tokens(model, tokens)
    assert pictures.shape == (len(tokens), model.geometry.height, model.geometry.width, 3)
    again = encode_pictures(model, to_pixels(pictures))
    assert again.shape == tokens.shape
    assert 0 <= int(again.min()) <= int(again.max()) < model.geometry.codes


def test_prompts_are_padded_on_the_left_and_hold_the_prompt(model: UnifiedModel) -> None:
    ids, mask = model.encode_prompts(PROMPTS)
    assert ids.shape == mask.shape and mask[:, -1].all() and not mask.all()
    assert (ids[mask == 0] == model.pad_id).all()
    assert all(prompt in model.generation_text(prompt) for prompt in PROMPTS)


def test_the_unconditional_prompt_depends_on_the_length_of_the_prompt_at_most(model: UnifiedModel) -> None:
    first, other = (
        model.unconditional(*model.encode_prompts([prompt] * 2)) for prompt in ("a red circle", "a blue star")
    )
    for ids, mask in (first, other):
        assert ids.shape == mask.shape and len(ids) == 2 and mask[:, -1].all()
    assert first[0].equal(other[0]) and first[1].equal(other[1])


def test_no_prompt_has_no_unconditional_prompt(model: UnifiedModel) -> None:
    ids, mask = model.encode_prompts(PROMPTS)
    none = model.unconditional(ids[:0], mask[:0])
    stacked, whole = stack_left([(ids, mask), none], model.pad_id)
    assert stacked.equal(ids) and whole.equal(mask)


@torch.no_grad()
def test_embeddings_and_logits_have_their_shapes(model: UnifiedModel, tokens: NDArray[np.uint16]) -> None:
    ids, mask = model.encode_prompts(PROMPTS)
    codes, count = as_tensor(tokens), model.geometry.tokens
    hidden = model.backbone.config.hidden_size
    assert model.embed_text(ids).shape == (*ids.shape, hidden)
    states = run_image_sequence(model, ids, mask, codes)
    assert states.shape[:2] == (len(ids), ids.shape[1] + model.embed_image(codes).shape[1])
    last = states[:, ids.shape[1] - 1]
    assert model.image_logits(last, codes[:, :0]).shape == (len(ids), model.geometry.codes)
    several = last[:, None].expand(-1, count, -1)
    assert model.image_logits(several, codes[:, :-1]).shape == (len(ids), count, model.geometry.codes)
    assert model.text_logits(last).shape[0] == len(ids)
    assert model.text_logits(last).shape[1] >= len(model.tokenizer)


@torch.no_grad()
def test_logits_of_any_part_of_an_image_are_those_of_the_whole(model: UnifiedModel, tokens: NDArray[np.uint16]) -> None:
    codes, count = as_tensor(tokens), model.geometry.tokens
    states = torch.randn((len(codes), count, model.backbone.config.hidden_size))
    whole = model.image_logits(states, codes[:, :-1])
    part = model.image_logits(states[:, 5:8], codes[:, :7])
    assert torch.allclose(part, whole[:, 5:8], atol=1e-5)
    for number in (0, 7):
        assert torch.allclose(model.image_logits(states[:, number], codes[:, :number]), whole[:, number], atol=1e-5)


@torch.no_grad()
def test_images_embedded_token_by_token_are_those_embedded_at_once(
    model: UnifiedModel, tokens: NDArray[np.uint16]
) -> None:
    codes, offsets = as_tensor(tokens), model.token_offsets(model.geometry.tokens)
    grown = [model.embed_image(codes[:, : step + 1], step) for step in range(codes.shape[1])]
    whole = model.embed_image(codes)
    assert torch.allclose(torch.cat(grown, dim=1), whole, atol=1e-6)
    assert offsets[0] == 0 and all(later - former >= 0 for former, later in pairwise(offsets))
    completed = np.cumsum([0] + [part.shape[1] for part in grown[:-1]])
    assert list(offsets) == completed.tolist()


@torch.no_grad()
def test_prompt_padding_changes_nothing(model: UnifiedModel, tokens: NDArray[np.uint16]) -> None:
    ids, mask = model.encode_prompts(PROMPTS)
    plain = image_token_logprobs(model, ids, mask, as_tensor(tokens))
    wider = torch.nn.functional.pad(ids, (3, 0), value=7), torch.nn.functional.pad(mask, (3, 0))
    assert torch.allclose(image_token_logprobs(model, *wider, as_tensor(tokens)), plain, atol=1e-5)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_batch_size_changes_no_token(model: UnifiedModel, guidance: float) -> None:
    drawn = [sample_images(model, PROMPTS, SEEDS, guidance, 1.0, size) for size in (1, 3, 4)]
    assert np.array_equal(drawn[0].tokens, drawn[1].tokens) and np.array_equal(drawn[0].tokens, drawn[2].tokens)
    assert len(np.unique(drawn[0].tokens)) > 4


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_log_probability_at_sampling_is_the_teacher_forced_one(model: UnifiedModel, guidance: float) -> None:
    drawn = sample_images(model, PROMPTS, SEEDS, guidance, 0.8, batch_size=4)
    assert np.allclose(drawn.mean_logprob, mean_logprob(model, PROMPTS, drawn.tokens, batch_size=3), atol=1e-5)


def test_object_masks_have_one_value_per_token(model: UnifiedModel, tokens: NDArray[np.uint16]) -> None:
    nouns = [["circle"], ["square"], ["circle"], ["star"]]
    if model.geometry.rows is None:
        with pytest.raises(ModelError, match="no place in the picture"):
            object_masks(model, PROMPTS, nouns, tokens)
        return
    masks = object_masks(model, PROMPTS, nouns, tokens)
    assert masks.shape == tokens.shape
    assert 0 <= masks.min() < masks.max() <= 1


def test_yes_and_no_are_distinct_tokens(model: UnifiedModel) -> None:
    yes, no = model.answer_ids
    assert yes and no and not set(yes) & set(no)


def test_questions_hold_one_picture_and_are_answered(model: UnifiedModel, tokens: NDArray[np.uint16]) -> None:
    prefix, rows = question_ids(model, TEXTS)
    assert prefix.count(model.picture_id) == model.geometry.read_positions
    assert all(rows)
    pictures = decode_tokens(model, tokens)
    embedded = model.embed_pictures(pictures)
    assert embedded.shape[:2] == (len(pictures), model.geometry.read_positions)
    answers = answer_questions(model, pictures, [TEXTS] * len(pictures), batch_size=4)
    assert all(0 <= chance <= 1 for found in answers for answer in found for chance in answer)
    assert len({answer for found in answers for answer in found}) == 2 * len(pictures)


def test_the_export_is_a_stock_model_with_the_same_text_logits(shipped: UnifiedModel, tmp_path: Path) -> None:
    found: Any = AutoModelForCausalLM.from_pretrained(
        export_text_backbone(shipped.folder, tmp_path / "text"), output_loading_info=True
    )
    text, info = found
    assert not info["missing_keys"] and not info["unexpected_keys"]
    ids, mask = encode_texts(shipped.tokenizer, TEXTS)
    with torch.no_grad():
        expected = shipped.text_logits(
            shipped.backbone(
                inputs_embeds=shipped.embed_text(ids), attention_mask=mask, position_ids=positions(mask)
            ).last_hidden_state
        )
        logits = text(input_ids=ids, attention_mask=mask, position_ids=positions(mask)).logits
    assert torch.allclose(logits, expected, atol=1e-5)


def test_adapters_sit_in_the_backbone_and_merging_gives_what_they_give(shipped: UnifiedModel, tmp_path: Path) -> None:
    model = load(shipped.folder)
    adapted = add_lora(model, LoraSettings(rank=4, alpha=8, dropout=0.0)).eval()
    trained = [weights for weights in adapted.parameters() if weights.requires_grad]
    in_backbone = {id(weights) for weights in model.backbone.parameters()}
    assert trained and all(id(weights) in in_backbone for weights in trained)
    with torch.no_grad():
        for weights in trained:
            weights.normal_(std=0.1, generator=torch.Generator().manual_seed(weights.numel()))
    saved = save_adapter(adapted, tmp_path / "adapter")
    merged = load(merge_adapter(shipped.folder, saved, tmp_path / "merged"))
    images = np.random.default_rng(1).integers(0, model.geometry.codes, (4, model.geometry.tokens), dtype=np.uint16)
    plain, found, whole = (mean_logprob(each, PROMPTS, images, 4) for each in (shipped, model, merged))
    assert np.allclose(found, whole, atol=1e-4)
    assert np.abs(found - plain).max() > 1e-2


def test_memory_figures_are_those_of_the_tensors(shipped: UnifiedModel) -> None:
    figures, rows, length = shipped.memory, 3, 10
    stored = sum(weights.numel() * weights.element_size() for weights in shipped.network.parameters())
    assert figures.weights == stored == figures.parameters * shipped.dtype.itemsize
    inputs = torch.zeros((rows, length, shipped.backbone.config.hidden_size))
    with torch.no_grad():
        cache = shipped.backbone(inputs_embeds=inputs, use_cache=True).past_key_values
    kept = [part for layer in cache.layers for part in (layer.keys, layer.values)]
    assert figures.cache * rows * length == sum(part.numel() * part.element_size() for part in kept)
    layers = len(shipped.backbone.layers)
    assert figures.layer_inputs * rows * length == layers * inputs.numel() * inputs.element_size()


def test_the_estimate_of_activations_is_near_what_training_keeps(shipped: UnifiedModel) -> None:
    model = load(shipped.folder)
    adapted = add_lora(model, LoraSettings(rank=4, dropout=0.05)).train()
    weights = {each.untyped_storage().data_ptr() for each in adapted.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    embedded = torch.randn((2, 40, model.backbone.config.hidden_size))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.backbone(inputs_embeds=embedded, use_cache=False).last_hidden_state.sum()
    measured = sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / (2 * 40)
    assert model.memory.activations / 2 < measured < model.memory.activations * 2


def test_memory_is_known_before_there_are_weights(shipped: UnifiedModel) -> None:
    with torch.device("meta"):
        empty = shipped.network_class(shipped.network.config)
    assert memory_figures(empty, shipped.backbone.config) == shipped.memory
