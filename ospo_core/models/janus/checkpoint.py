"""What a Janus checkpoint says about its sequences and images: special tokens, and the geometry of its two encoders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import GenerationConfig, JanusConfig, PreTrainedModel, PreTrainedTokenizerBase

from ospo_core.errors import ModelError
from ospo_core.models.base import ImageGeometry, inconsistent

BEGIN_OF_IMAGE = "<begin_of_image>"
END_OF_IMAGE = "<end_of_image>"


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the tokens that the layout of a sequence depends on; `image` stands for one position of a picture."""

    bos: int
    eos: int
    pad: int
    begin_of_image: int
    end_of_image: int
    image: int


def special_tokens(tokenizer: PreTrainedTokenizerBase, network: PreTrainedModel) -> SpecialTokens:
    """Find the special tokens: by role (begin, end, padding), by name (image tags), by the model's configuration.

    Raises:
        ModelError: one of them is missing, or generation_config.json has another one: transformers draws with that.
    """
    config: Any = network.config
    vocabulary = tokenizer.get_vocab()
    found = {
        "bos": tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id,
        "pad": tokenizer.pad_token_id,
        "begin_of_image": vocabulary.get(BEGIN_OF_IMAGE),
        "end_of_image": vocabulary.get(END_OF_IMAGE),
        "image": config.image_token_id if config.image_token_id < len(tokenizer) else None,
    }
    missing = [name for name, token in found.items() if token is None]
    if missing:
        raise ModelError(
            "the tokenizer lacks special tokens",
            field="tokenizer",
            value=missing,
            remedy="Use the model's own tokenizer",
        )
    special = SpecialTokens(**{name: int(token) for name, token in found.items() if token is not None})
    _check_generation(special, network.generation_config)
    return special


def _check_generation(special: SpecialTokens, stored: GenerationConfig | None) -> None:
    """Raise ModelError if the ids that transformers' own `generate` uses are not those of the tokenizer."""
    if getattr(stored, "_from_model_config", True):  # there is no file, so nothing was stated
        return
    extra = getattr(stored, "generation_kwargs", None) or {}
    if not isinstance(extra, dict):
        raise ModelError("not an object", field="generation_config.json: generation_kwargs", value=extra)
    for option, token, found in (
        ("bos_token_id", special.bos, getattr(stored, "bos_token_id", None)),
        ("pad_token_id", special.pad, getattr(stored, "pad_token_id", None)),
        ("boi_token_id", special.begin_of_image, extra.get("boi_token_id")),
    ):
        if found is not None and found != token:
            raise ModelError(
                f"the tokenizer has {token}: it belongs to another model, or the file is wrong",
                field=f"generation_config.json: {option}",
                value=found,
                remedy="Use the tokenizer and the generation_config.json of the same checkpoint",
            )


def image_geometry(config: JanusConfig) -> ImageGeometry:
    """Return the geometry of square images; vision encoder and VQ model must agree on the grid.

    Raises:
        ModelError: the configuration contradicts itself, or the codebook is too large for stored tokens.
    """
    vision: Any = config.vision_config
    vq: Any = config.vq_config
    sizes = {"image_size": vision.image_size, "patch_size": vision.patch_size}
    for option, size in sizes.items():
        if not isinstance(size, int) or size < 1:
            raise inconsistent(f"vision_config.{option} is {size}, not a number of pixels")
    grid = vision.image_size // vision.patch_size
    stride = 2 ** (len(vq.channel_multiplier) - 1)
    if grid * stride != vision.image_size:
        raise inconsistent(f"the VQ model's stride {stride} does not give the encoder's grid of {grid}")
    if vision.num_image_tokens != grid * grid:
        raise inconsistent(f"vision_config.num_image_tokens is {vision.num_image_tokens}, the grid has {grid * grid}")
    return ImageGeometry(
        height=vision.image_size,
        width=vision.image_size,
        tokens=grid * grid,
        codes=vq.num_embeddings,
        rows=grid,
        columns=grid,
        read_positions=grid * grid,
    )
