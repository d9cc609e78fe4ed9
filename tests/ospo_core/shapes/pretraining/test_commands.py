"""What `ospo shapes draw` and `ospo shapes pretrain` refuse before they load or write anything."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from ospo_core.errors import ConfigError, ModelError, StorageError
from ospo_core.shapes.pretraining.commands import draw, pretrain
from ospo_core.shapes.pretraining.model import load_checkpoint


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("out", {"out": "x.nope"}),
        ("out", {"out": "drawing"}),
        ("n", {"n": 0}),
        ("n", {"n": 10**9}),
        ("guidance", {"guidance": float("nan")}),
        ("guidance", {"guidance": float("inf")}),
        ("prompt", {"prompt": " "}),
        ("prompt", {"prompt": "a red \udcff circle"}),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_a_model_is_loaded(
    tmp_path: Path, field: str, changes: dict[str, object]
) -> None:
    asked = {"prompt": "a red circle", "n": 1, "guidance": 1.0, "out": "x.png", **changes}
    prompt, n, guidance = str(asked["prompt"]), int(str(asked["n"])), float(str(asked["guidance"]))
    with pytest.raises(ConfigError) as caught:
        draw(prompt, tmp_path / str(asked["out"]), tmp_path / "no-model", n, guidance)
    assert caught.value.field == field and caught.value.remedy
    assert not list(tmp_path.iterdir())


def test_a_drawing_is_written_whole_and_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with Image.open(draw("a red circle", tmp_path / "new" / "x.PNG", None, 2, 1.0)) as picture:
        assert (picture.format, picture.size) == ("PNG", (512, 256))
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file/x\.png: .*cannot write"):
        draw("a red circle", tmp_path / "file" / "x.png", None, 1, 1.0)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.PNG"]


@pytest.mark.parametrize("device", ["nope", "", "cuda:99", "mps", "meta"])
def test_a_device_that_is_not_one_is_refused_before_anything_is_written(tmp_path: Path, device: str) -> None:
    with pytest.raises(ConfigError, match=r"device: .*Use --device"):
        pretrain(tmp_path / "out", 1, device, resume=False)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_and_a_damaged_checkpoint_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a checkpoint")
    with pytest.raises(StorageError, match="cannot write"):
        pretrain(tmp_path / "file" / "out", 1, "cpu", resume=False)
    with pytest.raises(StorageError, match="File name too long"):
        pretrain(tmp_path / ("x" * 300), 1, "cpu", resume=False)
    with pytest.raises(ModelError, match=r"file: the checkpoint cannot be read: .*Remove it"):
        load_checkpoint(tmp_path / "file", torch.nn.Linear(1, 1), [])
