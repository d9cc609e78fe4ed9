"""What `ospo shapes …` does; imported only when such a command runs, since it needs torch."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ospo_core.artifacts.ids import derive_seed
from ospo_core.config.sections import ModelConfig
from ospo_core.errors import ConfigError
from ospo_core.models.loading import load_model
from ospo_core.models.locate import resolve_model
from ospo_core.models.pictures import decode_tokens
from ospo_core.models.sampling import sample_images
from ospo_core.shapes.pretrain import Recipe
from ospo_core.shapes.pretrain_vq import VqRecipe
from ospo_core.shapes.ship import pretrain_model, short_recipe

EMBEDDED = "embedded:shapes"


def pretrain(out: Path, steps: int | None, device: str, resume: bool, compiled: bool = False) -> Path:
    """Pretrain the embedded model into `out`; goes on from the checkpoint in `out/work` if `resume` is set.

    `compiled` compiles the language model first.

    Raises:
        ConfigError: `out` holds a checkpoint and `resume` is not set, or the device does not exist.
    """
    if (out / "work").exists() and not resume:
        raise ConfigError(
            "the folder holds an unfinished pretraining",
            field="out",
            value=str(out),
            remedy="Add --resume to go on with it, or choose another folder",
        )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    return pretrain_model(out, short_recipe(Recipe(), steps), VqRecipe(), _device(device), compiled)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("there is no CUDA device", field="device", value=name, remedy="Use --device cpu")
    return torch.device(name)


def draw(prompt: str, out: Path, model: Path | None, n: int, guidance: float) -> Path:
    """Draw a prompt `n` times, side by side, four times enlarged, into the PNG `out`."""
    loaded = load_model(model or resolve_model(EMBEDDED), ModelConfig())
    seeds = [derive_seed("draw", prompt, k) for k in range(n)]
    sampled = sample_images(loaded, [prompt] * n, seeds, guidance, 1.0, n)
    strip = np.concatenate(list(decode_tokens(loaded, sampled.tokens)), axis=1)
    out.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(strip)
    picture.resize((strip.shape[1] * 4, strip.shape[0] * 4), Image.Resampling.NEAREST).save(out)
    return out
