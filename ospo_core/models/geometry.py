"""What a checkpoint says about its sequences and pictures: special tokens, token grid, pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import JanusConfig, PreTrainedTokenizerBase

from ospo_core.errors import ModelError

BEGIN_OF_IMAGE = "<begin_of_image>"
END_OF_IMAGE = "<end_of_image>"
_MAX_CODES = 2**16  # tokens are stored as uint16


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the tokens that the layout of a sequence depends on."""

    bos: int
    eos: int
    pad: int
    begin_of_image: int
    end_of_image: int
    image: int


@dataclass(frozen=True)
class ImageGeometry:
    """Image size in pixels, side of the token grid, tokens a picture (grid squared), size of the codebook."""

    image_size: int
    grid: int
    image_tokens: int
    codes: int


def special_tokens(tokenizer: PreTrainedTokenizerBase, config: JanusConfig) -> SpecialTokens:
    """Find the special tokens: by role (begin, end, padding), by name (image tags), by the model's configuration.

    Raises:
        ModelError: one of them is missing.
    """
    found = {
        "bos": tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id,
        "pad": tokenizer.pad_token_id,
        "begin_of_image": _token_id(tokenizer, BEGIN_OF_IMAGE),
        "end_of_image": _token_id(tokenizer, END_OF_IMAGE),
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
    return SpecialTokens(**{name: int(token) for name, token in found.items() if token is not None})


def _token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int | None:
    """Return the id of `token`, or None where the vocabulary does not have it."""
    return tokenizer.get_vocab().get(token)


def image_geometry(config: JanusConfig) -> ImageGeometry:
    """Return image size, grid and codes; both vision encoder and VQ model must agree on the grid.

    Raises:
        ModelError: the configuration contradicts itself, or the codebook is too large for stored tokens (uint16).
    """
    vision: Any = config.vision_config
    vq: Any = config.vq_config
    grid = vision.image_size // vision.patch_size
    stride = 2 ** (len(vq.channel_multiplier) - 1)
    problem = ""
    if grid * stride != vision.image_size:
        problem = f"the VQ model's stride {stride} does not give the encoder's grid of {grid}"
    elif vision.num_image_tokens != grid * grid:
        problem = f"vision_config.num_image_tokens is {vision.num_image_tokens}, the grid has {grid * grid}"
    elif vq.num_embeddings > _MAX_CODES:
        problem = f"more than {_MAX_CODES} codes"
    if problem:
        raise ModelError(problem, field="config.json", remedy="Use a checkpoint whose configuration is consistent")
    return ImageGeometry(vision.image_size, grid, grid * grid, vq.num_embeddings)


def to_pixels(images: NDArray[np.uint8]) -> torch.Tensor:
    """Turn pictures `uint8 [B, H, W, 3]` into network input `float32 [B, 3, H, W]` in [-1, 1] (mean and std 0.5)."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def from_pixels(pixels: torch.Tensor) -> NDArray[np.uint8]:
    """Turn network output `[B, 3, H, W]` in [-1, 1] into pictures `uint8 [B, H, W, 3]`; clips the rest."""
    scaled = ((pixels.float() + 1.0) * 127.5).round().clamp(0, 255)
    images: NDArray[np.uint8] = scaled.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return images
