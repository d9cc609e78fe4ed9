"""Putting the embedded model together: VQ model, language model and tokenizer in one folder of safetensors."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from transformers import GenerationConfig, JanusForConditionalGeneration

from ospo_core.artifacts.atomic_write import atomic_file
from ospo_core.shapes.pretrain import Recipe, build_model, train
from ospo_core.shapes.pretrain_vq import VqRecipe, train_vq
from ospo_core.shapes.tokenizer import BEGIN_IMAGE, build_tokenizer, token_id

logger = logging.getLogger(__name__)

VQ_FILE = "vq.pt"
VQ_CHECKPOINT = "vq-checkpoint.pt"


def pretrain_model(
    folder: Path, recipe: Recipe, vq_recipe: VqRecipe, device: torch.device, compiled: bool = False
) -> Path:
    """Train (or go on training) both parts in `folder/work`, then write the finished model into `folder`.

    The parts do not depend on each other, since the codes of a picture are known without its VQ model. `compiled`: see
    `train`.

    Returns:
        the folder of the model, loadable by `JanusForConditionalGeneration.from_pretrained`.
    """
    torch.set_flush_denormal(True)
    work = folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    model = build_model(recipe.seed)
    _pretrain_vq(model, vq_recipe, work / VQ_FILE, device)
    train(model, recipe, work, device, compiled=compiled)
    model.model.vqmodel.load_state_dict(torch.load(work / VQ_FILE, weights_only=True, map_location="cpu"))
    save_model(model, folder)
    return folder


def _pretrain_vq(model: JanusForConditionalGeneration, recipe: VqRecipe, path: Path, device: torch.device) -> None:
    """Train the VQ model, unless `path` already holds a finished one."""
    if path.exists():
        return
    vq = model.model.vqmodel
    train_vq(vq, recipe, device, partial(logger.info, "vq %d %s"), path.with_name(VQ_CHECKPOINT))
    with atomic_file(path) as temporary:
        torch.save(vq.state_dict(), temporary)


def save_model(model: JanusForConditionalGeneration, folder: Path) -> None:
    """Write weights (bfloat16), configuration and tokenizer; code vectors are stored with length one."""
    with torch.no_grad():
        codebook = model.model.vqmodel.quantize.embedding.weight
        codebook.copy_(F.normalize(codebook, dim=1))
    nn.Module.to(model, device="cpu", dtype=torch.bfloat16)
    tokenizer = build_tokenizer()
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        generation_kwargs={"boi_token_id": token_id(tokenizer, BEGIN_IMAGE)},
    )
    model.save_pretrained(folder, max_shard_size="100MB")
    tokenizer.save_pretrained(folder)


def short_recipe(recipe: Recipe, steps: int | None) -> Recipe:
    """Return the recipe with another number of steps, if one is given."""
    return recipe if steps is None else replace(recipe, steps=steps)
