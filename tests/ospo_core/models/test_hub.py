"""Repositories of the hub, from a stand-in on this machine: one commit, data files only, once, and clear refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest

from ospo_core.artifacts.model_digest import model_digest
from ospo_core.artifacts.storage import Storage
from ospo_core.errors import MissingModelError, ModelError
from ospo_core.models.hub import Repository, pinned, repository_of
from ospo_core.models.locate import resolve_model
from ospo_core.stages.model_ref import ModelRef, model_folder, starting_model
from tests.support.hub_server import COMMIT, NAME, HubServer, hub_server
from tests.support.rounds import small_round
from tests.support.tiny_janus import load_tiny_janus


@pytest.fixture
def published(tiny_folder: Path, tmp_path: Path) -> Path:
    """A repository as people publish them: with pickled weights, code, and a folder of another format beside."""
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "published"))
    for name in ("pytorch_model.bin", "modeling_janus.py", "README.md", "onnx/config.json", "onnx/model.safetensors"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("not to be downloaded")
    return folder


@pytest.fixture
def hub(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.chdir(tmp_path)
    with hub_server(published, tmp_path / "cache", monkeypatch) as server:
        yield server


@pytest.mark.parametrize(
    ("path", "repository"),
    [
        ("deepseek-community/Janus-Pro-1B", Repository("deepseek-community/Janus-Pro-1B", None)),
        ("a/b@refs/pr/1", Repository("a/b", "refs/pr/1")),
        ("hub:a/b@main", Repository("a/b", "main")),
        ("models/here", None),
        ("hub:models/here", Repository("models/here", None)),
        ("./a/b", None),
        ("../a", None),
        ("~/a", None),
        ("/a/b", None),
        ("a", None),
        ("a/b/c", None),
        ("a/..", None),
        ("s3://a/b", None),
        ("stored:models/a", None),
        ("embedded:a/b", None),
    ],
)
def test_a_name_of_two_parts_is_a_repository_unless_a_folder_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, repository: Repository | None
) -> None:
    (tmp_path / "models" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert repository_of(path) == repository


def test_a_commit_is_downloaded_once_without_pickles_code_and_folders(
    hub: HubServer, published: Path, tiny_folder: Path
) -> None:
    folder = resolve_model(NAME)
    assert sorted(file.name for file in folder.iterdir()) == sorted(file.name for file in tiny_folder.iterdir())
    assert not [path for path in hub.requests if path.endswith((".bin", ".py", ".md")) or "onnx" in path]
    assert model_digest(folder) == model_digest(tiny_folder) and folder.name == COMMIT
    assert load_tiny_janus(folder).digest == model_digest(tiny_folder)
    asked = len(hub.requests)
    assert resolve_model(pinned(NAME, folder)) == resolve_model(f"{NAME}@{COMMIT}") == folder
    assert len(hub.requests) == asked, "a pinned commit that is there needs no network"


def test_a_round_records_the_commit_and_finds_its_model_by_it(hub: HubServer, tmp_path: Path) -> None:
    config = small_round(tmp_path, model={"path": f"{NAME}@v1"})
    storage = Storage(config.storage.root)
    with pytest.raises(MissingModelError, match="not in the Hugging Face cache"):
        starting_model(config, storage, download=False)
    ref = starting_model(config, storage)
    assert ref == ModelRef(digest=ref.digest, source=f"hub:{NAME}@{COMMIT}")
    assert starting_model(config, storage, download=False) == ref
    assert model_digest(model_folder(ref, storage, tmp_path / "scratch")) == ref.digest


def test_a_local_folder_wins_over_a_repository_of_its_name(hub: HubServer, published: Path, tmp_path: Path) -> None:
    shutil.copytree(published, tmp_path / NAME)
    assert resolve_model(NAME) == Path(NAME) and pinned(NAME, Path(NAME)) == NAME and hub.requests == []
    assert resolve_model(f"hub:{NAME}").name == COMMIT


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("owner/absent", "neither such a folder nor such a repository"),
        ("owner/gated", r"this repository is gated .*HF_TOKEN"),
        (f"{NAME}@nowhere", "no such revision"),
    ],
)
def test_what_the_hub_refuses_is_named(hub: HubServer, path: str, message: str) -> None:
    with pytest.raises(MissingModelError, match=message):
        resolve_model(path)


def test_without_network_only_the_cache_is_read(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(MissingModelError, match="not in the Hugging Face cache, and HF_HUB_OFFLINE is set"):
        resolve_model(NAME)
    assert hub.requests == []
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    folder = resolve_model(NAME)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    hub.close()
    assert resolve_model(NAME) == folder
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(MissingModelError, match="cannot be downloaded from http"):
        resolve_model("owner/other")


def test_a_download_cut_short_is_not_taken_for_a_model(hub: HubServer, published: Path) -> None:
    weights = published / "model.safetensors"
    weights.rename(published / "away")
    (published / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model.safetensors"}}))
    folder = resolve_model(NAME)
    with pytest.raises(ModelError, match=r"weights that the index names are missing .*model\.safetensors"):
        load_tiny_janus(folder)


def test_another_kind_of_model_is_refused_before_its_weights_are_downloaded(hub: HubServer, published: Path) -> None:
    (published / "config.json").write_text(json.dumps({"model_type": "multi_modality"}))
    with pytest.raises(ModelError, match=r"not a Janus or Emu3 model.*ospo model convert"):
        resolve_model(NAME)
    assert not [path for path in hub.requests if path.endswith(".safetensors")]
