"""Load a Janus folder, check that it is whole, and know its image geometry.

Only safetensors weights are read and no code of the folder is run. A checkpoint that lacks a tensor is refused:
transformers alone would fill it with random numbers and only log that it did.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoTokenizer, JanusForConditionalGeneration, PreTrainedTokenizerBase

from ospo_core.artifacts.model_digest import model_digest
from ospo_core.config.sections import ModelConfig
from ospo_core.errors import ModelError
from ospo_core.models.geometry import (
    ImageGeometry,
    SpecialTokens,
    from_pixels,
    image_geometry,
    special_tokens,
    to_pixels,
)
from ospo_core.models.locate import check_folder, resolve_model
from ospo_core.models.quiet import quiet_transformers
from ospo_core.prompts.families import PromptFamily, family

__all__ = [
    "ImageGeometry",
    "LoadedModel",
    "SpecialTokens",
    "check_folder",
    "from_pixels",
    "image_geometry",
    "load_model",
    "load_tokenizer",
    "read_weights",
    "resolve_model",
    "special_tokens",
    "to_pixels",
    "wrap_model",
]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_LOAD_ERRORS = (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError)


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model in memory with everything needed to use it.

    Attributes:
        model: the network, in evaluation mode.
        tokenizer: its tokenizer; adds the begin-of-sequence token itself.
        family: chat texts and answer spellings.
        device: where the weights are.
        dtype: their type.
        folder: where it was read from (an empty path for a model made in memory).
        special: ids of special tokens.
        geometry: image size and token grid.
    """

    model: JanusForConditionalGeneration
    tokenizer: PreTrainedTokenizerBase
    family: PromptFamily
    device: torch.device
    dtype: torch.dtype
    folder: Path
    special: SpecialTokens
    geometry: ImageGeometry

    @property
    def grid(self) -> int:
        """Side of the square grid of image tokens."""
        return self.geometry.grid

    @property
    def image_tokens(self) -> int:
        """Number of tokens a picture, `T`."""
        return self.geometry.image_tokens

    @property
    def codes(self) -> int:
        """Number of entries of the codebook."""
        return self.geometry.codes

    @property
    def image_size(self) -> int:
        """Side of the square picture, pixels."""
        return self.geometry.image_size

    @cached_property
    def digest(self) -> str:
        """Digest of the folder's configuration, tokenizer and weights (read once, on first use)."""
        return model_digest(self.folder)


def load_model(folder: Path, config: ModelConfig) -> LoadedModel:
    """Load the Janus checkpoint in `folder` for inference.

    Raises:
        ModelError: the folder is not a whole Janus checkpoint in safetensors, or the device is not there.
    """
    check_folder(folder)
    device = _device(config.device)
    tokenizer = load_tokenizer(folder)
    model = read_weights(folder, _DTYPES[config.dtype])
    network: nn.Module = model
    network.to(device).requires_grad_(False)
    return wrap_model(model, tokenizer, family(config.family), folder)


def wrap_model(
    model: JanusForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    prompt_family: PromptFamily,
    folder: Path = Path(),
) -> LoadedModel:
    """Make a `LoadedModel` of a network that is already in memory, and put the network in evaluation mode.

    Raises:
        ModelError: the tokenizer or the image geometry does not fit.
    """
    return LoadedModel(
        model=model.eval(),
        tokenizer=tokenizer,
        family=prompt_family,
        device=model.device,
        dtype=model.dtype,
        folder=folder,
        special=special_tokens(tokenizer, model.config),
        geometry=image_geometry(model.config),
    )


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer in `folder`, running none of its code.

    Raises:
        ModelError: the tokenizer's files cannot be read.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except _LOAD_ERRORS as error:
        raise ModelError(f"the tokenizer cannot be read: {error}", field=str(folder)) from error
    return tokenizer


def read_weights(folder: Path, dtype: torch.dtype | str = "auto") -> JanusForConditionalGeneration:
    """Read the network from safetensors on the CPU; `dtype="auto"` keeps the stored type.

    Raises:
        ModelError: the weights are damaged, of other shapes than the configuration says, or incomplete.
    """
    try:
        with quiet_transformers():
            found: Any = JanusForConditionalGeneration.from_pretrained(
                folder,
                dtype=dtype,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except _LOAD_ERRORS as error:
        raise ModelError(
            f"the weights cannot be read: {error}", field=str(folder), remedy="Copy or train the model again"
        ) from error
    model: JanusForConditionalGeneration = found[0]
    _check_loading(folder, found[1])
    return model


def _check_loading(folder: Path, info: dict[str, Any]) -> None:
    """Refuse a checkpoint of which transformers had to invent or leave out tensors."""
    for problem in ("missing_keys", "mismatched_keys"):
        names = sorted(str(name) for name in info.get(problem, ()))
        if names:
            raise ModelError(
                f"{len(names)} tensors of the weights are missing or do not fit",
                field=str(folder),
                value=names[:3],
                remedy="Copy or train the model again",
            )


def _device(name: str) -> torch.device:
    """Return the device that a configuration names; `auto` takes the GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise ModelError("no GPU is visible", field="model.device", value=name, remedy="Use device auto or cpu")
    return torch.device(name)
