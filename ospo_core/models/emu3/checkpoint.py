"""What an Emu3 checkpoint says about its sequences and images: tags, the ids of the codes, and the size of pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import Emu3ForConditionalGeneration, PreTrainedTokenizerBase

from ospo_core.errors import ModelError
from ospo_core.models.base import ImageGeometry, inconsistent
from ospo_core.models.folders import readable

WRAPPER, END_OF_FRAME = "<|image token|>", "<|extra_201|>"
"""What stands between the size of an image and its tokens, and between the last row end and the end-of-image tag."""
IMAGE_AREA = 518_400
"""Pixels of a picture whose checkpoint does not state `image_area`: the default of transformers' `Emu3Processor`."""


@dataclass(frozen=True)
class ImageIds:
    """Ids of the text vocabulary that stand for a picture.

    Attributes:
        codes: by code, the id of its token.
        row_end: the token after each row.
        placeholder: stands for one position of a picture.
    """

    codes: tuple[int, ...]
    row_end: int
    placeholder: int


def image_ids(tokenizer: PreTrainedTokenizerBase, network: Emu3ForConditionalGeneration, folder: Path) -> ImageIds:
    """Find the ids of a picture in the vocabulary map of config.json, which transformers uses as well.

    Raises:
        ModelError: the map lacks a code or a tag, names an id that the network does not have, or the tokenizer has
            other ids.
    """
    config: Any = network.config
    field = "config.json: vocabulary_map"
    if not config.vocabulary_map:
        raise ModelError("the ids of image tokens are missing", field=field, remedy="Use Emu3 in transformers' format")
    mapping = network.vocabulary_mapping
    with readable("the names of image tokens cannot be read", folder / "config.json"):
        by_code = dict(mapping.img2bpe)
    size, stated = config.vq_config.codebook_size, [mapping.eol_token_id, mapping.image_token_id]
    if by_code.keys() != set(range(size)) or len(set(by_code.values())) != size or None in stated:
        raise inconsistent(f"vocabulary_map does not name each of the {size} codes, the row end and the placeholder")
    ids = ImageIds(tuple(by_code[code] for code in range(size)), *stated)
    rows = config.text_config.vocab_size
    if not all(0 <= number < rows for number in (*ids.codes, *stated)):
        raise inconsistent(f"vocabulary_map names ids outside of the {rows} of the network")
    names = ["<|extra_200|>", "<image>", *mapping.image_tokens_str]
    vocabulary = tokenizer.get_vocab()
    wrong = [name for name in names if vocabulary.get(name) != config.vocabulary_map[name]]
    wrong += [name for name in (WRAPPER, END_OF_FRAME) if not vocabulary.get(name, rows) < rows]
    if wrong or tokenizer.pad_token_id is None:
        raise ModelError(
            "the tokenizer lacks image tokens, or has them under other ids than the model",
            field="tokenizer",
            value=wrong[:3] or ["padding"],
            remedy="Use the model's own tokenizer",
        )
    return ids


def image_geometry(config: Any) -> ImageGeometry:
    """Return the geometry of square pictures of `image_area` pixels, rounded as `Emu3Processor` rounds.

    The VQ model takes pictures of any size, so the area is a choice: `image_area` of config.json, or `IMAGE_AREA`.

    Raises:
        ModelError: the area is not a number of pixels that holds a token and fits the language model.
    """
    area = getattr(config, "image_area", IMAGE_AREA)
    stride = 2 ** (len(config.vq_config.channel_multiplier) - 1)
    if not isinstance(area, int) or isinstance(area, bool) or area < 1:
        raise inconsistent(f"image_area is {area}, not a number of pixels")
    side = round(math.sqrt(area) / stride)
    longest = config.text_config.max_position_embeddings
    if not 0 < side * (side + 1) < longest:
        raise inconsistent(f"image_area is {area}: {side} rows of {side} tokens do not fit {longest} positions")
    return ImageGeometry(
        height=side * stride,
        width=side * stride,
        tokens=side * side,
        codes=config.vq_config.codebook_size,
        rows=side,
        columns=side,
        read_positions=side * (side + 1),
    )
