"""The starting model is found by name and checked by content; the pointer changes only on a fair promotion."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ospo_core.artifacts.checksummed_json import dump_checksummed
from ospo_core.artifacts.model_digest import model_digest
from ospo_core.artifacts.storage import Storage
from ospo_core.errors import DamagedArtifactError, ModelError
from ospo_core.stages.model_ref import (
    POINTER_KEY,
    ModelPointer,
    ModelRef,
    current_model,
    model_folder,
    note_model,
    noted_model,
    promote,
    starting_model,
    stored_ref,
    trained,
)
from tests.support.manifests import generation
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
    (fetched / "model.safetensors").unlink()
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


EVIL = ["/any/folder", "../../outside", f"../{A}", A[:-1], A.upper(), f"{A}/x", f"{A}\n", ""]


def plain_json(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode()


@pytest.mark.parametrize("write", [plain_json, dump_checksummed], ids=["as earlier versions", "sealed"])
@pytest.mark.parametrize(
    "change",
    [
        *({"digest": digest} for digest in EVIL),
        *({"key": key} for key in ("/any/folder", "../outside", "models/../../x", "models//x", "s3://b/k", "", 5)),
        {"parent": "x"},
        {"training": "../x"},
        {"evaluation": None},
        {"more": 1},
    ],
)
def test_a_forged_pointer_is_refused_before_anything_is_copied(
    tmp_path: Path, change: dict[str, Any], write: Callable[[dict[str, Any]], bytes]
) -> None:
    config = small_round(tmp_path / "in", model={"path": "current"})
    storage = Storage(config.storage.root)
    storage.put_folder(model_files(tmp_path / "model"), "models/evil")
    storage.write(POINTER_KEY, write({**pointer(A, B).model_dump(), "key": "models/evil", **change}))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DamagedArtifactError, match=r"models/current\.json: the record is damaged.*Delete this file"):
        starting_model(config, storage)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_pointer_is_checksummed_and_one_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    promote(storage, pointer(B, A))
    whole = storage.read(POINTER_KEY)
    for position in range(len(whole)):
        storage.write(POINTER_KEY, whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(DamagedArtifactError, match=r"models/current\.json"):
            current_model(storage)
    storage.write(POINTER_KEY, plain_json(pointer(B, A).model_dump()))
    assert current_model(storage) == pointer(B, A)


@pytest.mark.parametrize("source", ["stored:../x", "stored:/etc", "stored:", "stored:models/../../x"])
def test_a_noted_model_lies_in_the_storage(tmp_path: Path, source: str) -> None:
    storage, note = Storage(str(tmp_path)), "nightly/run.json"
    assert noted_model(storage, note) is None
    note_model(storage, note, stored_ref(A, "models/a"))
    assert noted_model(storage, note) == stored_ref(A, "models/a")
    storage.write(note, dump_checksummed({"digest": A, "source": source}))
    with pytest.raises(DamagedArtifactError, match=r"nightly/run\.json"):
        noted_model(storage, note)


def test_a_stored_folder_with_another_model_is_not_copied(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "store"))
    storage.put_folder(model_files(tmp_path / "model"), f"models/{A}")
    with pytest.raises(ModelError, match=rf"store/models/{A}: the model's files are not those"):
        model_folder(stored_ref(A, f"models/{A}"), storage, tmp_path / "scratch")
    assert not list((tmp_path / "scratch").rglob("*.safetensors"))


@pytest.mark.parametrize("change", [{"model_digest": "../x"}, {"merged": "../../x"}, {"parent_digest": None}])
def test_a_training_that_names_no_models_is_damaged(change: dict[str, Any]) -> None:
    good = generation(1, "0" * 64)[-1]
    assert trained(good).model == stored_ref("1" * 64, f"models/{'1' * 64}")
    with pytest.raises(DamagedArtifactError, match="does not say which model"):
        trained(good.model_copy(update={"extra": {**good.extra, **change}}))
