"""A model folder is checked before it is read: all that would be loaded lies in it and is part of its digest."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import JanusForConditionalGeneration

from ospo_core.artifacts.model_digest import model_digest
from ospo_core.errors import MissingModelError, ModelError
from ospo_core.models.janus.model import JanusModel
from ospo_core.models.locate import check_folder, check_weights, resolve_model
from tests.support.tiny_janus import load_tiny_janus


@pytest.fixture
def copied(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "copied"))


@pytest.fixture
def sharded(tiny: JanusModel, copied: Path) -> Path:
    """The tiny model in several files with an index."""
    (copied / "model.safetensors").unlink()
    assert isinstance(tiny.network, JanusForConditionalGeneration)
    tiny.network.save_pretrained(copied, max_shard_size="300KB")
    assert len(check_weights(copied)) > 1
    return copied


def name_weights(folder: Path, name: object) -> None:
    index = folder / "model.safetensors.index.json"
    stored = json.loads(index.read_text())
    stored["weight_map"][next(iter(stored["weight_map"]))] = name
    index.write_text(json.dumps(stored))


def test_weights_in_several_files_are_read_and_all_part_of_the_digest(sharded: Path, tiny: JanusModel) -> None:
    loaded = load_tiny_janus(sharded)
    state = tiny.network.state_dict()
    assert all(weights.equal(state[name]) for name, weights in loaded.network.state_dict().items())
    for file in check_weights(sharded):
        before, content = model_digest(sharded), file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert model_digest(sharded) != before
        file.write_bytes(content)


@pytest.mark.parametrize(
    "name", ["../other/model.safetensors", "/tmp/model.safetensors", "sub/a.safetensors", ".a.safetensors", "a.bin", 7]
)
def test_an_index_may_not_name_files_outside_the_folder_or_of_another_kind(sharded: Path, name: object) -> None:
    other = sharded.parent / "other"
    other.mkdir()
    shutil.copy(check_weights(sharded)[0], other / "model.safetensors")
    name_weights(sharded, name)
    with pytest.raises(ModelError, match=r"not safetensors files of this folder|index of the weights is damaged"):
        load_tiny_janus(sharded)


def test_missing_weights_of_an_index_are_named(sharded: Path) -> None:
    check_weights(sharded)[-1].unlink()
    with pytest.raises(ModelError, match=r"weights that the index names are missing .got 'model-0000"):
        load_tiny_janus(sharded)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": 3}'])
def test_a_damaged_index_is_refused(sharded: Path, text: str) -> None:
    (sharded / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ModelError, match="index of the weights is damaged"):
        check_folder(sharded)


def test_another_configuration_of_the_folder_is_not_read(copied: Path) -> None:
    """transformers would read that file in the place of the one that was checked."""
    stored = json.loads((copied / "config.json").read_text())
    (copied / "config.5.0.0.json").write_text(json.dumps({**stored, "transformers_weights": "sub/model.safetensors"}))
    (copied / "config.json").write_text(json.dumps({**stored, "configuration_files": ["config.5.0.0.json"]}))
    with pytest.raises(ModelError, match=r"config\.json: configuration_files: .* Remove configuration_files"):
        load_tiny_janus(copied)


@pytest.mark.parametrize("option", ["tokenizer_file", "vocab_file", "fast_tokenizer_files"])
def test_a_tokenizer_of_another_folder_is_refused(copied: Path, option: str) -> None:
    file = copied / "tokenizer_config.json"
    stored = json.loads(file.read_text())
    for value in (None, "tokenizer.json"):
        file.write_text(json.dumps({**stored, option: value, "special_tokens_map_file": "/elsewhere/map.json"}))
        check_folder(copied)
    for other in ("../other/tokenizer.json", "/tmp/tokenizer.json", "vocab.pkl", ["tokenizer.5.json"], 3):
        file.write_text(json.dumps({**stored, option: other}))
        with pytest.raises(ModelError, match=rf"tokenizer_config\.json: {option}: .* Remove {option}"):
            check_folder(copied)


def test_the_single_file_is_read_and_an_index_beside_it_is_checked(sharded: Path, tiny_folder: Path) -> None:
    shutil.copy(tiny_folder / "model.safetensors", sharded)
    assert [file.name for file in check_weights(sharded)] == ["model.safetensors"]
    name_weights(sharded, "../other/model.safetensors")
    with pytest.raises(ModelError, match="not safetensors files of this folder"):
        check_folder(sharded)


def test_weights_of_a_name_that_nobody_reads_are_none(copied: Path) -> None:
    (copied / "model.safetensors").rename(copied / "weights.safetensors")
    with pytest.raises(ModelError, match=r"no safetensors weights .got .'weights\.safetensors'"):
        check_folder(copied)


@pytest.mark.parametrize("path", ["x" * 300, "~nobody-of-this-name/model", "a\0b", "x" * 300 + "/y"])
def test_paths_that_no_system_takes_are_missing_models(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingModelError, match=r"model\.path: .*no such"):
        resolve_model(path, download=False)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "../shapes", "shapes/weights", "", "."])
def test_odd_names_of_embedded_models_and_folders_are_refused(name: str) -> None:
    with pytest.raises(ModelError, match="no such embedded model"):
        resolve_model(f"embedded:{name}")
    with pytest.raises(ModelError, match=r"no config\.json"):
        check_folder(Path(name))


def test_an_adapter_or_other_weights_that_would_be_loaded_too_are_refused(copied: Path, tmp_path: Path) -> None:
    (copied / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="an adapter lies beside the model"):
        load_tiny_janus(copied)
    (copied / "adapter_config.json").unlink()
    (copied / "sub").mkdir()
    shutil.copy(copied / "model.safetensors", copied / "sub")
    stored = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**stored, "transformers_weights": "sub/model.safetensors"}))
    with pytest.raises(ModelError, match="names another file with the weights"):
        load_tiny_janus(copied)
