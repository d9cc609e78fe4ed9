"""An exported checkpoint loads with stock transformers and PEFT, and its card says what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoTokenizer, JanusForConditionalGeneration

from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.model_digest import model_digest
from ospo_core.artifacts.storage import Storage
from ospo_core.config.sections import LoraSettings
from ospo_core.errors import ConfigError, ModelError
from ospo_core.models.adapters import add_lora, save_adapter
from ospo_core.schema import StageName
from ospo_core.sharing.checkpoint import export_checkpoint
from ospo_core.stages.model_ref import ModelRef
from tests.support.manifests import made, published_training
from tests.support.tiny_janus import load_tiny_janus


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "store"))


@pytest.fixture
def training(storage: Storage, tiny_folder: Path, tmp_path: Path) -> Manifest:
    """A training that made the tiny model, with a fresh adapter."""
    parent = ModelRef(digest="a" * 64, source="hub:owner/parent@123")
    made_by = published_training(storage, 1, parent, tiny_folder)
    save_adapter(add_lora(load_tiny_janus(tiny_folder), LoraSettings(rank=2, alpha=4)), tmp_path / "adapter")
    storage.put_folder(tmp_path / "adapter", "training/adapter")
    data = {"upstream": {"pairs": "content pairs 1"}, "model": {"family": "shapes"}}
    extra = {**made_by.extra, "adapter": "training/adapter"}
    return made_by.model_copy(update={"extra": extra, "ingredients": data})


def evaluation_of(training: Manifest) -> Manifest:
    group: dict[str, Any] = {"name": "all", "prompts": 30, "parent": 0.5, "child": 0.9}
    decision = {"metric": "oracle", "reason": "it rose", "categories": [], "overall": group, "promote": True}
    return made(StageName.EVALUATION, 2, child=training.extra["model_digest"], decision=decision)


def test_transformers_and_peft_load_it(storage: Storage, training: Manifest, tiny_folder: Path, tmp_path: Path) -> None:
    out = export_checkpoint(storage, [training], training, tmp_path / "out")
    assert model_digest(out) == training.extra["model_digest"]
    network = JanusForConditionalGeneration.from_pretrained(out)
    known = JanusForConditionalGeneration.from_pretrained(tiny_folder)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), known.parameters(), strict=True))
    assert AutoTokenizer.from_pretrained(out)("a red circle").input_ids
    adapted = PeftModel.from_pretrained(network, out / "adapter")
    assert any("lora" in name for name, _ in adapted.named_parameters())


def test_the_card_has_parent_data_figures_and_how_to_load_it(
    storage: Storage, training: Manifest, tmp_path: Path
) -> None:
    manifests = [training, evaluation_of(training)]
    out = export_checkpoint(storage, manifests, training, tmp_path / "out")
    _, head, body = (out / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    assert yaml.safe_load(head)["library_name"] == "transformers"
    for words in (
        "a" * 64,
        "owner/parent@123",
        "pairs of its round, content content pairs 1",
        "| all | 30 | 50.0 % | 90.0 % |",
        "import AutoTokenizer, JanusForConditionalGeneration",
        'PeftModel.from_pretrained(parent, "path/to/this/folder/adapter")',
    ):
        assert words in body


def test_a_damaged_model_and_a_taken_folder_are_refused(storage: Storage, training: Manifest, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").touch()
    with pytest.raises(ConfigError, match="there already"):
        export_checkpoint(storage, [], training, tmp_path / "taken")
    storage.write(f"{training.extra['merged']}/config.json", b'{"model_type": "janus"}')
    with pytest.raises(ModelError, match="not the one that was trained"):
        export_checkpoint(storage, [], training, tmp_path / "out")
    assert not (tmp_path / "out").exists()
