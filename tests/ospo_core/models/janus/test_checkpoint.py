"""What is read from a checkpoint's configuration and tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ospo_core.errors import ModelError
from ospo_core.models.base import ImageGeometry
from ospo_core.models.janus.checkpoint import image_geometry, special_tokens
from ospo_core.models.janus.model import JanusModel
from tests.support.tiny_janus import load_tiny_janus, make_tokenizer


def test_geometry_comes_from_the_configuration(tiny: JanusModel) -> None:
    assert tiny.geometry == ImageGeometry(
        height=32, width=32, tokens=16, codes=48, rows=4, columns=4, read_positions=16
    )


def test_missing_special_tokens_are_named(tiny: JanusModel) -> None:
    tokenizer = make_tokenizer()
    tokenizer.pad_token = None
    with pytest.raises(ModelError, match=r"lacks special tokens .*pad"):
        special_tokens(tokenizer, tiny.network)


@pytest.mark.parametrize("option", ["bos_token_id", "pad_token_id", "boi_token_id"])
def test_a_generation_config_of_another_tokenizer_is_refused(tiny_folder: Path, tmp_path: Path, option: str) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "copied"))
    stored = json.loads((folder / "generation_config.json").read_text())
    (stored["generation_kwargs"] if option == "boi_token_id" else stored)[option] = 7
    (folder / "generation_config.json").write_text(json.dumps(stored))
    with pytest.raises(ModelError, match=rf"generation_config\.json: {option}: the tokenizer has .*got 7"):
        load_tiny_janus(folder)
    (folder / "generation_config.json").unlink()
    assert load_tiny_janus(folder).special.pad == 0


@pytest.mark.parametrize(
    ("part", "option", "value", "message"),
    [
        ("vq_config", "channel_multiplier", [1, 1], "stride 2 does not give the encoder's grid of 4"),
        ("vision_config", "num_image_tokens", 576, "num_image_tokens is 576, the grid has 16"),
        ("vq_config", "num_embeddings", 2**16 + 1, "more than 65536 codes"),
    ],
)
def test_a_configuration_that_contradicts_itself_is_refused(
    tiny_folder: Path, part: str, option: str, value: object, message: str
) -> None:
    config = load_tiny_janus(tiny_folder).network.config
    setattr(getattr(config, part), option, value)
    with pytest.raises(ModelError, match=message):
        image_geometry(config)
