"""What `ospo shapes pretrain` and `ospo shapes draw` do; imported only by these commands, because it needs torch."""

from __future__ import annotations

import logging
import math
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ospo_core.artifacts.atomic_write import temporary_file
from ospo_core.artifacts.ids import derive_seed
from ospo_core.artifacts.storage_errors import as_storage_error
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

KINDS = {".png": "PNG", ".webp": "WEBP", ".jpg": "JPEG", ".jpeg": "JPEG"}
"""How the name of a drawing may end, and what is written then."""
MOST_DRAWN = 1000
"""Pictures side by side; they are drawn together."""

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
        ModelError: the checkpoint cannot be read.
        StorageError: `out` cannot be written.
    """
    work = out / "work"
    with as_storage_error("look for a checkpoint", str(work)):
        unfinished = work.exists()
    if unfinished and not resume:
        raise ConfigError(
            "the folder holds an unfinished pretraining",
            field="out",
            value=str(out),
            remedy="Add --resume to continue it, or choose another folder",
        )
    recipe = Recipe() if steps is None else Recipe(steps=steps)
    place = _device(device)
    with as_storage_error("write", str(work)):
        work.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_flush_denormal(True)
    model = build_model(recipe.seed)
    if not (work / VQ_FILE).exists():
        train_vq(model.model.vqmodel, VqRecipe(), place, partial(logger.info, "vq %d %s"), work / VQ_CHECKPOINT)
        save_checkpoint(work / VQ_FILE, model.model.vqmodel, [], VqRecipe().steps)
    train(model, recipe, work, place, compiled=compiled)
    load_checkpoint(work / VQ_FILE, model.model.vqmodel, [])
    save_model(model, out)
    return out


def _device(name: str) -> torch.device:
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError("unknown device", field="device", value=name, remedy="Use --device auto, cpu or cuda")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("there is no CUDA device", field="device", value=name, remedy="Use --device cpu")
    return torch.device(name)


def draw(prompt: str, out: Path, model: Path | None, n: int, guidance: float) -> Path:
    """Draw a prompt `n` times and save the pictures side by side, enlarged four times, as `out`.

    Raises:
        ConfigError: `out` does not end like a picture, or the prompt or a number cannot be drawn.
        StorageError: `out` cannot be written.
    """
    _check_drawing(prompt, out, n, guidance)
    loaded = load_model(model or resolve_model(EMBEDDED), ModelConfig())
    seeds = [derive_seed("draw", prompt, k) for k in range(n)]
    sampled = sample_images(loaded, [prompt] * n, seeds, guidance, 1.0, n)
    strip = np.concatenate(list(decode_tokens(loaded, sampled.tokens)), axis=1)
    picture = Image.fromarray(strip).resize((strip.shape[1] * 4, strip.shape[0] * 4), Image.Resampling.NEAREST)
    with as_storage_error("write", str(out)), temporary_file(out) as fresh:
        try:
            picture.save(fresh, format=KINDS[out.suffix.lower()])
        except ValueError as error:
            remedy = "Choose .png, or fewer pictures"
            raise ConfigError(f"no picture of this kind is that wide: {error}", field="out", remedy=remedy) from error
        fresh.replace(out)
    return out


def _check_drawing(prompt: str, out: Path, n: int, guidance: float) -> None:
    """Raise ConfigError for what could not be drawn or saved, before a model is loaded."""
    if out.suffix.lower() not in KINDS:
        remedy = f"Let it end in {', '.join(KINDS)}"
        raise ConfigError("not the name of a picture", field="out", value=str(out), remedy=remedy)
    if not 1 <= n <= MOST_DRAWN:
        raise ConfigError(f"not between 1 and {MOST_DRAWN}", field="n", value=n, remedy="Draw several times")
    if not math.isfinite(guidance):
        raise ConfigError("not a number", field="guidance", value=guidance, remedy="Give one of 0 or more")
    if not prompt.strip() or not prompt.isprintable():
        raise ConfigError("not a text to draw", field="prompt", value=prompt, remedy="Name what the picture shows")
