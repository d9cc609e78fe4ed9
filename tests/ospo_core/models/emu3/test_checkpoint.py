"""What is read from an Emu3 checkpoint's configuration and tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ospo_core.errors import ModelError
from ospo_core.models.base import ImageGeometry
from ospo_core.models.emu3.checkpoint import image_geometry
from tests.support.tiny_emu3 import load_tiny_emu3, make_tiny_emu3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_tiny_emu3(tmp_path / "model")


def change(folder: Path, **options: Any) -> None:
    """Change options of config.json; None removes one."""
    stored = json.loads((folder / "config.json").read_text()) | options
    kept = {name: value for name, value in stored.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))


def test_geometry_comes_from_the_area_and_the_stride(folder: Path) -> None:
    geometry = load_tiny_emu3(folder).geometry
    assert geometry == ImageGeometry(32, 32, tokens=16, codes=48, rows=4, columns=4, read_positions=20)


def test_a_checkpoint_without_an_area_has_the_size_of_transformers_processor(folder: Path) -> None:
    config = load_tiny_emu3(folder).network.config
    config.text_config.max_position_embeddings = 9216  # as Emu3's
    del config.image_area
    assert (image_geometry(config).height, image_geometry(config).rows) == (720, 90)


@pytest.mark.parametrize("area", [0, 0.5, "large", -4, True, 9, 10**9])
def test_an_area_that_is_no_size_of_a_picture_is_refused(folder: Path, area: object) -> None:
    change(folder, image_area=area)
    with pytest.raises(ModelError, match="image_area is"):
        load_tiny_emu3(folder)


def test_the_size_is_part_of_the_model_s_identity(folder: Path) -> None:
    before = load_tiny_emu3(folder).digest
    change(folder, image_area=64 * 64)
    after = load_tiny_emu3(folder)
    assert after.geometry.tokens == 64 and after.digest != before
    assert after.generation_text("a").endswith("8*8<|image token|>")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (None, "the weights cannot be read"),  # transformers cannot build the network without the map
        ({}, "ids of image tokens are missing"),
        ({"<|visual token 000003|>": None}, "does not name each of the 48 codes"),
        ({"<|visual token 000003|>": 900}, "does not name each of the 48 codes"),
        ({"<|visual token 000003|>": 10**6}, "names ids outside of the"),
        ({"<|visual token a00003|>": 900}, "names of image tokens cannot be read"),
        ({"<|extra_200|>": None}, "does not name each of the 48 codes"),
        ({"<image>": None}, "does not name each of the 48 codes"),
        ({"<|extra_200|>": 5}, r"under other ids than the model .got \['<\|extra_200\|>'\]"),
    ],
)
def test_a_vocabulary_map_that_does_not_fit_is_refused(
    folder: Path, changed: dict[str, int | None] | None, message: str
) -> None:
    stored: dict[str, int] = json.loads((folder / "config.json").read_text())["vocabulary_map"]
    merged = {name: number for name, number in (stored | (changed or {})).items() if number is not None}
    change(folder, vocabulary_map=merged if changed else changed)
    with pytest.raises(ModelError, match=message):
        load_tiny_emu3(folder)


@pytest.mark.parametrize("token", ["<|image token|>", "<|extra_201|>", "<|visual token 000007|>"])
def test_a_tokenizer_without_a_tag_is_refused(folder: Path, token: str) -> None:
    file = folder / "tokenizer.json"
    file.write_text(file.read_text().replace(token, "<|another|>"))
    with pytest.raises(ModelError, match="lacks image tokens"):
        load_tiny_emu3(folder)
