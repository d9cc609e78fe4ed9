from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ospo_core.artifacts.model_digest import model_digest
from ospo_core.config.sections import ModelConfig
from ospo_core.errors import ModelError
from ospo_core.models.base import UnifiedModel
from ospo_core.models.janus.model import JanusModel
from ospo_core.models.loading import load_model, load_shapes
from ospo_core.models.locate import FAMILIES, model_class, resolve_model
from ospo_core.models.logprobs import mean_logprob
from ospo_core.models.pictures import decode_tokens
from ospo_core.models.sampling import sample_images
from ospo_core.models.tokenizer import load_tokenizer
from ospo_core.models.vqa import answer_questions
from tests.support.tiny_janus import load_tiny_janus


@pytest.fixture
def copied(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "copied"))


def edit_json(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_loaded_model_is_frozen_in_evaluation_mode_and_knows_its_digest(tiny: JanusModel, tiny_folder: Path) -> None:
    assert not tiny.network.training
    assert not any(weights.requires_grad for weights in tiny.network.parameters())
    assert (tiny.dtype, tiny.device, tiny.family.name) == (torch.float32, torch.device("cpu"), "shapes")
    assert tiny.digest == model_digest(tiny_folder)


def test_the_asked_type_is_used(tiny_folder: Path) -> None:
    loaded = load_model(tiny_folder, ModelConfig(device="cpu", dtype="bfloat16"))
    assert loaded.dtype == torch.bfloat16
    assert {weights.dtype for weights in loaded.network.parameters()} == {torch.bfloat16}


def test_a_bfloat16_model_of_the_other_family_draws_scores_and_answers(tiny_folder: Path) -> None:
    loaded = load_model(tiny_folder, ModelConfig(family="janus_pro", device="cpu", dtype="bfloat16"))
    drawn = sample_images(loaded, ["a star", "two red circles"], [1, 2], 3.0, 1.0, batch_size=2)
    again = mean_logprob(loaded, ["a star", "two red circles"], drawn.tokens, batch_size=2)
    assert np.allclose(drawn.mean_logprob, again, atol=0.2)  # bfloat16 has 8 bits; cached and whole passes round apart
    answers = answer_questions(loaded, decode_tokens(loaded, drawn.tokens), [["is it red ?"], ["a ?", "b c ?"]], 2)
    assert [len(found) for found in answers] == [1, 2]
    assert all(0 <= chance <= 1 for found in answers for answer in found for chance in answer)


def test_loading_shows_no_progress_bar(tiny_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_tiny_janus(tiny_folder)
    assert capfd.readouterr() == ("", "")


def test_only_pickled_weights_are_refused(copied: Path) -> None:
    torch.save(load_file(copied / "model.safetensors"), copied / "pytorch_model.bin")
    (copied / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no safetensors weights.*pytorch_model\.bin.*convert them"):
        load_tiny_janus(copied)


def test_another_architecture_is_refused(copied: Path) -> None:
    edit_json(copied / "config.json", model_type="llama")
    with pytest.raises(ModelError, match=r"not a Janus or Emu3 model .got 'llama'"):
        load_tiny_janus(copied)


@pytest.mark.parametrize("text", ["{", "[]", '"janus"'])
def test_a_damaged_configuration_is_refused(copied: Path, text: str) -> None:
    (copied / "config.json").write_text(text)
    with pytest.raises(ModelError, match="not a JSON object"):
        load_tiny_janus(copied)


@pytest.mark.parametrize(
    "value",
    [
        {"quant_method": "torchao", "quant_type": "int8wo"},
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        {"quant_method": "gptq"},
        3,
    ],
)
def test_a_quantisation_that_cannot_be_read_is_one_error(copied: Path, value: object) -> None:
    edit_json(copied / "config.json", quantization_config=value)
    with pytest.raises(ModelError, match="the weights cannot be read: "):
        load_tiny_janus(copied)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("rope_parameters", 3),
        ("text_config.attention_dropout", []),
        ("vision_config.num_hidden_layers", "two"),
        ("vision_config.patch_size", 0),
        ("vision_config.num_hidden_layers", 2**62),
        ("vq_config.num_labels", 10**9),
        ("vq_config.num_res_blocks", 2**31),
        ("text_config.hidden_size", 10**40),
        ("vq_config.channel_multiplier", [1] * 5000),
        ("text_config.model_type", "vision-encoder-decoder"),
        ("text_config.model_type", ["llama"]),
        ("dtype", "float17"),
        ("id2label", 3),
        ("attn_implementation", "flash_attention_2"),
        ("_attn_implementation", "somebody/kernels"),
        ("text_config.attn_implementation", "somebody/kernels:function"),
    ],
)
def test_any_wrong_value_of_a_configuration_is_one_error(copied: Path, place: str, value: object) -> None:
    """Whatever class of error the libraries raise, and however late they notice."""
    config = json.loads((copied / "config.json").read_text())
    *parts, option = place.split(".")
    inner = config[parts[0]] if parts else config
    inner[option] = value
    (copied / "config.json").write_text(json.dumps(config))
    for load in (load_model, load_shapes):
        with pytest.raises(ModelError, match=r"cannot be read: |config\.json") as caught:
            load(copied, ModelConfig(path=str(copied), device="cpu"))
        assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)


FILES = ("config.json", "tokenizer_config.json", "tokenizer.json", "generation_config.json")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        *((file, text) for file in FILES for text in ("[" * 100_000 + "]" * 100_000, "3", "\udcff", "")),
        ("tokenizer.json", '{"model": 3, "added_tokens": [3]}'),
        ("generation_config.json", '{"generation_kwargs": 3}'),
    ],
)
def test_files_that_hold_something_else_are_one_error(copied: Path, file: str, text: str) -> None:
    (copied / file).write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ModelError):
        load_tiny_janus(copied)


@pytest.mark.parametrize(("file", "message"), [("config.json", "no config.json"), ("tokenizer.json", "no tokenizer")])
def test_a_missing_file_is_named(copied: Path, file: str, message: str) -> None:
    (copied / file).unlink()
    with pytest.raises(ModelError, match=message):
        load_tiny_janus(copied)


def test_cut_weights_are_refused(copied: Path) -> None:
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ModelError, match="the weights cannot be read"):
        load_tiny_janus(copied)


def test_missing_tensors_are_not_filled_with_random_numbers(copied: Path) -> None:
    tensors = load_file(copied / "model.safetensors")
    name = next(name for name in tensors if "generation_head" in name)
    del tensors[name]
    save_file(tensors, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="1 tensors of the weights are missing") as caught:
        load_tiny_janus(copied)
    assert name in str(caught.value)


def test_tensors_of_another_shape_are_refused(copied: Path) -> None:
    tensors = load_file(copied / "model.safetensors")
    name = next(name for name in tensors if name.endswith("vision_head.weight"))
    tensors[name] = tensors[name][:-1].clone()
    save_file(tensors, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"cannot be read|do not fit"):
        load_tiny_janus(copied)


def test_a_damaged_tokenizer_is_refused(copied: Path) -> None:
    (copied / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="the tokenizer cannot be read"):
        load_tokenizer(copied)


@pytest.mark.parametrize("largest", [2**25, 2**32 - 1])
def test_a_token_with_an_id_that_fills_the_memory_is_refused(copied: Path, largest: int) -> None:
    stored = json.loads((copied / "tokenizer.json").read_text())
    for where in (stored["model"]["vocab"], stored["added_tokens"][-1]):
        before, name = dict(where), "id" if "id" in where else "red"
        where[name] = largest
        (copied / "tokenizer.json").write_text(json.dumps(stored))
        with pytest.raises(ModelError, match=r"tokenizer\.json: a token with an id that no model has"):
            load_tokenizer(copied)
        where.update(before)


@pytest.mark.parametrize("model_type", ["llama", None, ["janus"]])
def test_only_known_families_are_read(copied: Path, model_type: object) -> None:
    assert model_class(copied) is JanusModel
    edit_json(copied / "config.json", model_type=model_type)
    with pytest.raises(ModelError, match="not a Janus or Emu3 model"):
        model_class(copied)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_of_the_registry_can_be_imported(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": name}))
    assert issubclass(model_class(tmp_path), UnifiedModel)


def test_model_paths_are_folders_or_embedded_names(tmp_path: Path) -> None:
    assert resolve_model(str(tmp_path)) == tmp_path
    for path in (str(tmp_path / "absent"), "embedded:absent", "embedded:../shapes"):
        with pytest.raises(ModelError, match=r"model\.path: no such"):
            resolve_model(path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="only where there is no GPU")
def test_a_gpu_that_is_not_there_is_refused(tiny_folder: Path) -> None:
    with pytest.raises(ModelError, match="no GPU is visible"):
        load_model(tiny_folder, ModelConfig(device="cuda"))


def test_shapes_need_no_weights_and_give_the_figures_of_the_model(tiny: JanusModel, tmp_path: Path) -> None:
    folder = tmp_path / "planned"
    shutil.copytree(tiny.folder, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    planned = load_shapes(folder, ModelConfig(device="cpu"))
    assert {weights.device.type for weights in planned.network.parameters()} == {"meta"}
    assert (planned.memory, planned.geometry, planned.dtype) == (tiny.memory, tiny.geometry, tiny.dtype)
    with pytest.raises(ModelError, match=r"no config\.json"):
        load_shapes(tmp_path, ModelConfig(device="cpu"))
