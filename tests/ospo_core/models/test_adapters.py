from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import JanusForConditionalGeneration

from ospo_core.config.sections import LoraSettings
from ospo_core.errors import ModelError
from ospo_core.models.adapters import add_lora, load_adapter, merge_adapter, save_adapter
from ospo_core.models.janus.model import JanusModel
from ospo_core.models.loading import read_network
from ospo_core.models.logprobs import image_token_logprobs
from tests.support.tiny_janus import load_tiny_janus

SETTINGS = LoraSettings(rank=4, alpha=8, dropout=0.05)


def scores(model: JanusModel, images: NDArray[np.uint16]) -> torch.Tensor:
    ids, mask = model.encode_prompts(["a red circle"] * len(images))
    with torch.no_grad():
        return image_token_logprobs(model, ids, mask, torch.from_numpy(images.astype(np.int64)))


@pytest.fixture(scope="module")
def trained(tiny_folder: Path) -> JanusModel:
    """A model whose network has an adapter that changes it."""
    return load_tiny_janus(tiny_folder)


@pytest.fixture(scope="module")
def adapted(trained: JanusModel) -> PeftModel:
    """The network of `trained` with its adapter."""
    adapted = add_lora(trained, SETTINGS)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weights in adapted.named_parameters():
            if "lora_B" in name:
                weights.normal_(std=0.1, generator=generator)
    return adapted.eval()


@pytest.fixture(scope="module")
def adapter_folder(adapted: PeftModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_adapter(adapted, tmp_path_factory.mktemp("adapter") / "adapter")


def test_a_fresh_adapter_changes_nothing(tiny: JanusModel, images: NDArray[np.uint16]) -> None:
    fresh = load_tiny_janus(tiny.folder)
    add_lora(fresh, SETTINGS).eval()
    assert torch.allclose(scores(fresh, images), scores(tiny, images), atol=1e-6)


def test_fresh_adapters_come_from_the_seed_and_leave_global_noise_alone(tiny_folder: Path) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    states = [add_lora(load_tiny_janus(tiny_folder), SETTINGS, seed).state_dict() for seed in (7, 7, 8)]
    name = next(name for name in states[0] if "lora_A" in name)
    assert states[0][name].equal(states[1][name])
    assert not states[0][name].equal(states[2][name])
    assert torch.get_rng_state().equal(before)


@pytest.mark.usefixtures("adapted")
def test_stock_peft_and_transformers_load_the_adapter(
    tiny: JanusModel, trained: JanusModel, adapter_folder: Path, images: NDArray[np.uint16]
) -> None:
    base = JanusForConditionalGeneration.from_pretrained(tiny.folder)
    stock = PeftModel.from_pretrained(base, str(adapter_folder)).get_base_model()
    expected = scores(trained, images)
    assert torch.allclose(scores(JanusModel(stock, tiny.tokenizer, tiny.family), images), expected, atol=1e-6)
    assert not torch.allclose(scores(tiny, images), expected, atol=0.1)


@pytest.mark.usefixtures("adapted")
def test_the_merged_model_gives_what_the_adapter_gives(
    tiny_folder: Path, trained: JanusModel, adapter_folder: Path, images: NDArray[np.uint16]
) -> None:
    merged = merge_adapter(tiny_folder, adapter_folder, adapter_folder.parent / "merged")
    assert torch.allclose(scores(load_tiny_janus(merged), images), scores(trained, images), atol=1e-4)
    names = {file.name for file in tiny_folder.iterdir()}
    assert {file.name for file in merged.iterdir()} == names
    for name in names - {"model.safetensors"}:
        assert (merged / name).read_bytes() == (tiny_folder / name).read_bytes()


def test_merging_leaves_everything_but_the_language_model_as_it_was(
    tiny_folder: Path, adapter_folder: Path, tmp_path: Path
) -> None:
    before = load_file(tiny_folder / "model.safetensors")
    after = load_file(merge_adapter(tiny_folder, adapter_folder, tmp_path / "merged") / "model.safetensors")
    changed = {name for name in before if not before[name].equal(after[name])}
    assert before.keys() == after.keys()
    assert changed
    assert all(name.startswith("model.language_model.layers.") and "_proj" in name for name in changed)


def test_saved_adapters_do_not_depend_on_where_the_base_was(adapted: PeftModel, adapter_folder: Path) -> None:
    config = json.loads((adapter_folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] is None
    again = save_adapter(adapted, adapter_folder.parent / "again")
    assert {file.name for file in again.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    for file in again.iterdir():
        assert file.read_bytes() == (adapter_folder / file.name).read_bytes()


def test_a_loaded_adapter_trains_on(tiny_folder: Path, adapted: PeftModel, adapter_folder: Path) -> None:
    resumed = load_adapter(read_network(tiny_folder), adapter_folder, trainable=True)
    expected = {name: weights for name, weights in adapted.named_parameters() if weights.requires_grad}
    found = {name: weights for name, weights in resumed.named_parameters() if weights.requires_grad}
    assert found.keys() == expected.keys()
    assert all(found[name].equal(expected[name]) for name in found)


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_adapter_without_one_of_its_files_is_refused(
    tiny_folder: Path, adapter_folder: Path, tmp_path: Path, file: str
) -> None:
    broken = Path(shutil.copytree(adapter_folder, tmp_path / "broken"))
    (broken / file).unlink()
    with pytest.raises(ModelError, match=f"{file}: not a PEFT adapter"):
        load_adapter(read_network(tiny_folder), broken)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("peft_type", "XLORA"),
        ("peft_type", "PROMPT_TUNING"),
        ("peft_type", "NONE"),
        ("megatron_config", {"a": 1}),
        ("megatron_core", "antigravity"),
        ("modules_to_save", ["lm_head"]),
        ("trainable_token_indices", [1]),
        ("target_modules", 3),
        ("target_modules", "("),
        ("r", -1),
        ("r", "eight"),
    ],
)
def test_adapters_of_another_kind_are_refused(
    tiny_folder: Path, adapter_folder: Path, tmp_path: Path, option: str, value: object
) -> None:
    broken = Path(shutil.copytree(adapter_folder, tmp_path / "broken"))
    config = broken / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {option: value}))
    with pytest.raises(ModelError, match=r"the adapter cannot be read|not a plain LoRA adapter|does not fit"):
        load_adapter(read_network(tiny_folder), broken)


def test_a_pickled_adapter_is_never_read(tiny_folder: Path, adapter_folder: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(adapter_folder, tmp_path / "broken"))
    torch.save(load_file(broken / "adapter_model.safetensors"), broken / "adapter_model.bin")
    load_adapter(read_network(tiny_folder), broken)
    (broken / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match="not a PEFT adapter in safetensors"):
        load_adapter(read_network(tiny_folder), broken)


@pytest.mark.filterwarnings("ignore:Found missing adapter keys")
def test_damaged_and_incomplete_adapters_are_refused(tiny_folder: Path, adapter_folder: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(adapter_folder, tmp_path / "broken"))
    weights = broken / "adapter_model.safetensors"
    tensors = load_file(weights)
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(ModelError, match="cannot be read"):
        load_adapter(read_network(tiny_folder), broken)
    tensors.pop(next(iter(tensors)))
    save_file(tensors, weights)
    with pytest.raises(ModelError, match="does not fit"):
        load_adapter(read_network(tiny_folder), broken)
