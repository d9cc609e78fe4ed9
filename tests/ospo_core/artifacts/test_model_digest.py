"""A model's digest changes with what it computes and with nothing else."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from ospo_core.artifacts.model_digest import model_digest
from ospo_core.errors import ModelError


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a folder with the files of a model."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / name).write_bytes(name.encode() * 10)
    return folder


def test_copies_have_one_digest(model: Path, tmp_path: Path) -> None:
    """Name of the folder, times, READMEs and hidden files do not count; links do as their targets."""
    digest, copy, linked = model_digest(model), tmp_path / "copy", tmp_path / "linked"
    shutil.copytree(model, copy)
    (copy / "README.md").write_text("about")
    (copy / ".cache.json").write_text("{}")
    os.utime(copy / "config.json", (1, 1))
    linked.mkdir()
    for path in model.iterdir():
        (linked / path.name).symlink_to(path)
    assert model_digest(copy) == model_digest(linked) == digest
    assert len(digest) == 64


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors", "new.safetensors"])
def test_one_changed_byte_or_file_changes_the_digest(model: Path, name: str) -> None:
    """Also when the size stays the same and the digest was asked for before."""
    before = model_digest(model)
    path = model / name
    path.write_bytes(b"X" + path.read_bytes()[1:] if path.exists() else b"X")
    os.utime(path, ns=(0, 12345))
    assert model_digest(model) != before


def test_unchanged_files_are_not_read_again(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second digest of the same files opens none of them."""
    digest = model_digest(model)
    monkeypatch.setattr(Path, "open", lambda *_args, **_options: pytest.fail("a file was read again"))
    assert model_digest(model) == digest


def test_what_a_link_points_to_is_covered(model: Path, tmp_path: Path) -> None:
    """The cache of the Hugging Face Hub holds links; what is read through one counts, wherever it lies."""
    (model / "model.safetensors").rename(tmp_path / "blob")
    (model / "model.safetensors").symlink_to(tmp_path / "blob")
    before = model_digest(model)
    (tmp_path / "blob").write_bytes(b"other weights")
    assert model_digest(model) != before


def test_a_name_that_is_no_text_is_told(model: Path) -> None:
    (model / "\udcff.json").write_text("{}")
    with pytest.raises(ModelError, match="model: has a file whose name is not UTF-8"):
        model_digest(model)


def test_a_file_that_cannot_be_read_is_named(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: Path) -> str:
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr("ospo_core.artifacts.model_digest.file_sha256", refuse)
    with pytest.raises(ModelError, match=r"config\.json: cannot be read: Permission denied"):
        model_digest(model)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_incomplete_folders_are_told(model: Path, missing: str) -> None:
    """The error names the folder and the file that is missing."""
    (model / missing).unlink()
    with pytest.raises(ModelError, match=rf"model.*{missing.rpartition('.')[2]}"):
        model_digest(model)
