from __future__ import annotations

import errno
from pathlib import Path

import pytest

from ospo_core.errors import StorageError
from ospo_core.models.folders import copy_all_but_weights, new_folder


def test_a_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with new_folder(out) as fresh:
        (fresh / "a").write_text("new")
        assert not out.exists()
    assert (out / "a").read_text() == "new"
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_an_earlier_folder_is_replaced_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").write_text("old")
    with new_folder(out) as fresh:
        (fresh / "a").write_text("new")
    assert [path.name for path in out.iterdir()] == ["a"]


def test_an_error_leaves_the_earlier_folder_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(KeyError), new_folder(out) as fresh:
        (fresh / "a").write_text("half")
        raise KeyError("stop")
    assert list(tmp_path.rglob("*")) == [out]


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="disk full"), new_folder(tmp_path / "out"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_weights_are_not_copied(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    kept = {"config.json", "tokenizer.json", "tokenizer.model", "preprocessor_config.json", "chat_template.jinja"}
    for name in kept | {"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "README.md"}:
        (source / name).write_text(name)
    copy_all_but_weights(source, target)
    assert {file.name for file in target.iterdir()} == kept
