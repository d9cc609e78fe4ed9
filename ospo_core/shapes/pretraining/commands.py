"""What `ospo shapes pretrain` and `ospo shapes draw` do; imported only by these commands, because it needs torch."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ospo_core.artifacts.ids import derive_seed
from ospo_core.config.sections import EMBEDDED, ModelConfig
from ospo_core.errors import ConfigError
from ospo_core.models.loading import load_model
from ospo_core.models.locate import resolve_model
from ospo_core.models.pictures import decode_tokens
from ospo_core.models.sampling import sample_images
from ospo_core.shapes.pretraining.janus import Recipe, train
from ospo_core.shapes.pretraining.model import build_model, load_checkpoint, save_checkpoint, save_model
from ospo_core.shapes.pretraining.vq import VqRecipe, train_vq

logger = logging.getLogger(__name__)

VQ_FILE = "vq.pt"
VQ_CHECKPOINT = "vq-checkpoint.pt"


def pretrain(out: Path, steps: int | None, device: str, resume: bool, compiled: bool = False) -> Path:
    """Pretrain the embedded model and write it into `out`; unfinished work is kept in `out/work`.

    Its two parts do not depend on each other, since the codes of a picture are known without its VQ model.

    Args:
        out: folder of the finished model, loadable by `JanusForConditionalGeneration.from_pretrained`.
        steps: optimiser steps of the language model; None: those of the published recipe.
        resume: continue from the checkpoint in `out/work`.
        compiled: compile the language model first.

    Raises:
        ConfigError: `out` holds a checkpoint and `resume` is not set, or the device does not exist.
    """
    work = out / "work"
    if work.exists() and not resume:
        raise ConfigError(
            "the folder holds an unfinished pretraining",
            field="out",
            value=str(out),
            remedy="Add --resume to continue it, or choose another folder",
        )
    recipe = Recipe() if steps is None else Recipe(steps=steps)
    place = _device(device)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_flush_denormal(True)
    work.mkdir(parents=True, exist_ok=True)
    model = build_model(recipe.seed)
    if not (work / VQ_FILE).exists():
        train_vq(model.model.vqmodel, VqRecipe(), place, partial(logger.info, "vq %d %s"), work / VQ_CHECKPOINT)
        save_checkpoint(work / VQ_FILE, model.model.vqmodel, [], VqRecipe().steps)
    train(model, recipe, work, place, compiled=compiled)
    load_checkpoint(work / VQ_FILE, model.model.vqmodel, [])
    save_model(model, out)
    return out


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("there is no CUDA device", field="device", value=name, remedy="Use --device cpu")
    return torch.device(name)


def draw(prompt: str, out: Path, model: Path | None, n: int, guidance: float) -> Path:
    """Draw a prompt `n` times and save the pictures side by side, enlarged four times, as the PNG `out`."""
    loaded = load_model(model or resolve_model(EMBEDDED), ModelConfig())
    seeds = [derive_seed("draw", prompt, k) for k in range(n)]
    sampled = sample_images(loaded, [prompt] * n, seeds, guidance, 1.0, n)
    strip = np.concatenate(list(decode_tokens(loaded, sampled.tokens)), axis=1)
    out.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(strip)
    picture.resize((strip.shape[1] * 4, strip.shape[0] * 4), Image.Resampling.NEAREST).save(out)
    return out
