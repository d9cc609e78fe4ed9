"""The starting model is found by name and checked by content; the pointer changes only on a fair promotion."""

from __future__ import annotations

from pathlib import Path

import pytest

from ospo_core.artifacts.model_digest import model_digest
from ospo_core.artifacts.storage import Storage
from ospo_core.errors import DamagedArtifactError, ModelError
from ospo_core.stages.model_ref import (
    POINTER_KEY,
    ModelPointer,
    ModelRef,
    current_model,
    model_folder,
    promote,
    starting_model,
    stored_ref,
)
from tests.support.rounds import model_files, small_round


def pointer(digest: str, parent: str) -> ModelPointer:
    return ModelPointer(digest=digest, key=f"models/{digest}", parent=parent, training="7" * 64, evaluation="8" * 64)


A, B, C, X = ("a" * 64, "b" * 64, "c" * 64, "d" * 64)


def test_first_promotion_sets_the_pointer_and_repeating_it_changes_nothing(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    assert current_model(storage) is None
    assert promote(storage, pointer(B, A)).changed
    assert not promote(storage, pointer(B, A)).changed
    assert current_model(storage) == pointer(B, A)


def test_child_replaces_only_the_parent_that_it_was_compared_with(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    promote(storage, pointer(B, A))
    refused = promote(storage, pointer(X, A))
    assert not refused.changed and "not the parent" in refused.reason
    assert promote(storage, pointer(C, B)).changed
    assert current_model(storage) == pointer(C, B)
    assert not promote(storage, pointer(B, A)).changed  # the first round, cached, run again


def test_damaged_pointer_is_named(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage.write(POINTER_KEY, b'{"digest": 1}')
    with pytest.raises(DamagedArtifactError, match=r"current\.json"):
        current_model(storage)


def test_starting_model_is_identified_by_content(tmp_path: Path) -> None:
    config = small_round(tmp_path)
    folder = model_files(tmp_path / "model")
    ref = starting_model(config, Storage(config.storage.root))
    assert ref == ModelRef(digest=model_digest(folder), source=str(folder))
    assert model_folder(ref, Storage(config.storage.root), tmp_path) == folder
    model_files(folder, "other weights")
    with pytest.raises(ModelError, match="not those the round started with"):
        model_folder(ref, Storage(config.storage.root), tmp_path)


def test_current_model_is_fetched_from_storage(tmp_path: Path) -> None:
    config = small_round(tmp_path, model={"path": "current"})
    storage = Storage(config.storage.root)
    with pytest.raises(ModelError, match="no model has been promoted"):
        starting_model(config, storage)
    local = model_files(tmp_path / "merged")
    digest = model_digest(local)
    storage.put_folder(local, f"models/{digest}")
    promote(storage, pointer(digest, A))
    ref = starting_model(config, storage)
    assert ref == stored_ref(digest, f"models/{digest}")
    fetched = model_folder(ref, storage, tmp_path / "scratch")
    assert model_digest(fetched) == digest
    (fetched / "model.safetensors").write_text("broken copy", encoding="utf-8")
    assert model_digest(model_folder(ref, storage, tmp_path / "scratch")) == digest


@pytest.mark.parametrize(
    ("path", "problem"), [("/nowhere/model", "no such folder"), ("embedded:nothing", "no such embedded model")]
)
def test_model_that_is_not_there_is_named(tmp_path: Path, path: str, problem: str) -> None:
    config = small_round(tmp_path, model={"path": path})
    with pytest.raises(ModelError, match=problem):
        starting_model(config, Storage(config.storage.root))


def test_folder_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = model_files(tmp_path / "model")
    (folder / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    with pytest.raises(ModelError, match=r"not a Janus.*llama"):
        starting_model(small_round(tmp_path), Storage(str(tmp_path)))
