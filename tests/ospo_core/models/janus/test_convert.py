"""DeepSeek's own layout becomes transformers': every tensor, and what the model computes with them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ospo_core.errors import ModelError
from ospo_core.models.janus.model import JanusModel
from ospo_core.models.locate import convert_model
from ospo_core.models.pictures import decode_tokens
from ospo_core.models.sampling import sample_images
from ospo_core.models.vqa import answer_questions
from tests.support.deepseek_layout import deepseek_weights, write_deepseek
from tests.support.janus_pro import Shape, load_janus_pro, make_janus_pro

SHAPE = Shape(hidden=128, layers=2, vision_layers=2, image_size=64, codes=256, vocabulary=2048)
PROMPTS = ["a red bench", "two cats left of a dog"]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> JanusModel:
    return load_janus_pro(make_janus_pro(tmp_path_factory.mktemp("original"), SHAPE))


@pytest.fixture
def source(original: JanusModel, tmp_path: Path) -> Path:
    return write_deepseek(original.network, original.folder, tmp_path / "deepseek")


def same_model(found: JanusModel, original: JanusModel) -> None:
    """Compare every tensor, the ids, and the pictures, tokens and answers that the two give."""
    state, expected = found.network.state_dict(), original.network.state_dict()
    assert state.keys() == expected.keys()
    assert all(state[name].dtype == tensor.dtype and state[name].equal(tensor) for name, tensor in expected.items())
    assert (found.special, found.geometry) == (original.special, original.geometry)
    drawn = [sample_images(model, PROMPTS, [1, 2], 5.0, 1.0, batch_size=2) for model in (found, original)]
    assert np.array_equal(drawn[0].tokens, drawn[1].tokens)
    pictures = [decode_tokens(model, drawn[0].tokens) for model in (found, original)]
    assert np.array_equal(*pictures)
    asked = [["Is it red?"], ["Is there a dog?", "Are there two cats?"]]
    assert answer_questions(found, pictures[0], asked, 2) == answer_questions(original, pictures[0], asked, 2)


def test_pickled_weights_give_the_same_model(original: JanusModel, source: Path, tmp_path: Path) -> None:
    out = convert_model(source, tmp_path / "out")
    same_model(load_janus_pro(out), original)
    assert not list(out.glob("*.bin")) and list(out.glob("*.safetensors"))
    config = json.loads((out / "config.json").read_text())
    assert config["model_type"] == "janus" and config["text_config"]["vocab_size"] == SHAPE.vocabulary


def test_safetensors_in_several_files_give_the_same_model(original: JanusModel, source: Path, tmp_path: Path) -> None:
    (source / "pytorch_model.bin").unlink()
    parts: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]] = ({}, {})
    for number, (name, tensor) in enumerate(deepseek_weights(original.network).items()):
        parts[number % 2][name] = tensor.contiguous().clone()
    names = [f"model-{part}-of-2.safetensors" for part in (1, 2)]
    for name, tensors in zip(names, parts, strict=True):
        save_file(tensors, source / name)
    index = {key: name for name, tensors in zip(names, parts, strict=True) for key in tensors}
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    same_model(load_janus_pro(convert_model(source, tmp_path / "out")), original)
    (source / names[1]).unlink()
    with pytest.raises(ModelError, match=rf"not in the folder .got '{names[1]}'"):
        convert_model(source, tmp_path / "again")


def test_weights_keep_their_type(original: JanusModel, source: Path, tmp_path: Path) -> None:
    halved = {name: tensor.bfloat16() for name, tensor in deepseek_weights(original.network).items()}
    torch.save(halved, source / "pytorch_model.bin")
    out = convert_model(source, tmp_path / "out")
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
    assert sum(file.stat().st_size for file in out.glob("*.safetensors")) == pytest.approx(
        2 * sum(tensor.numel() for tensor in original.network.state_dict().values()), rel=0.05
    )


class Evil:
    """A pickle that runs a command."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch ran",)


def test_pickled_code_is_refused_and_not_run(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Evil()}, source / "pytorch_model.bin")
    with pytest.raises(ModelError, match="holds more than tensors"):
        convert_model(source, tmp_path / "out")
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out").exists()


def change_weights(source: Path, changes: dict[str, torch.Tensor | None]) -> None:
    stored = torch.load(source / "pytorch_model.bin", weights_only=True)
    kept = {name: tensor for name, tensor in {**stored, **changes}.items() if tensor is not None}
    torch.save(kept, source / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"other.weight": torch.zeros(1)}, r"unknown weights .got 'other\.weight'"),
        ({"gen_head.vision_head.bias": None}, r"do not belong together: .*model\.generation_head\.vision_head\.bias"),
        ({"gen_embed.weight": torch.zeros(3, 8)}, "do not belong together: .*size mismatch"),
        ({"language_model.lm_head.weight": None}, r"do not belong together: 'lm_head\.weight'"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    source: Path, tmp_path: Path, changes: dict[str, torch.Tensor | None], message: str
) -> None:
    change_weights(source, changes)
    with pytest.raises(ModelError, match=f"(?s){message}"):
        convert_model(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_folders_are_refused(original: JanusModel, source: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"not in a layout that can be converted .got 'janus'"):
        convert_model(original.folder, tmp_path / "out")
    with pytest.raises(ModelError, match="is not empty"):
        convert_model(source, source)
    (source / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match="no weights"):
        convert_model(source, tmp_path / "out")
    with pytest.raises(ModelError, match=r"not a Janus or Emu3 model .*ospo model convert"):
        load_janus_pro(source)
