"""Pretraining of the tiny Janus on random lessons; resumable, on a CPU or a GPU.

The VQ model is trained apart (`pretrain_vq`) and stays frozen here. Its codes are the glyph numbers, so the codes of a
picture are known without encoding it. Learning rate: warm-up, constant, linear decay; captions turn partly wrong for
the last part (`hedge_share`), see `lessons`; by default none are, since the model is not yet good enough to be spoilt.
"""

from __future__ import annotations

import json
import logging
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import JanusForConditionalGeneration

from ospo_core.shapes.batches import Batch, LessonPlan, Lessons
from ospo_core.shapes.teaching import drawing_loss, looking_losses, text_loss
from ospo_core.shapes.tiny import tiny_config
from ospo_core.shapes.tokenizer import BOS, EOS, IMAGE, PAD, build_tokenizer, token_id

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """Numbers of the pretraining; docs/lab-notes.md says how the shipped weights came about."""

    steps: int = 6000
    learning_rate: float = 1e-3
    warmup_steps: int = 150
    decay_share: float = 0.3
    hedge_share: float = 0.0
    weight_decay: float = 0.02
    text_weight: float = 1.0
    looking_weight: float = 1.5
    reading_weight: float = 0.3
    checkpoint_every: int = 100
    seed: int = 7
    plan: LessonPlan = field(default_factory=LessonPlan)


def build_model(seed: int) -> JanusForConditionalGeneration:
    """Return the tiny Janus with random weights."""
    tokenizer = build_tokenizer()
    names = {"bos": BOS, "eos": EOS, "pad": PAD, "image": IMAGE}
    special = {key: token_id(tokenizer, token) for key, token in names.items()}
    torch.manual_seed(seed)
    return JanusForConditionalGeneration(tiny_config(len(tokenizer), special))


def learning_rate_at(step: int, recipe: Recipe) -> float:
    """Return the learning rate of a step: warm-up, constant, linear decay to a twentieth."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    decay_from = int(recipe.steps * (1 - recipe.decay_share))
    if step < decay_from:
        return recipe.learning_rate
    done = (step - decay_from) / max(1, recipe.steps - decay_from)
    return recipe.learning_rate * (1 - 0.95 * done)


def step_losses(model: JanusForConditionalGeneration, batch: Batch, recipe: Recipe) -> tuple[Tensor, dict[str, float]]:
    """Return the weighted loss of a batch and its parts."""
    drawing, text = drawing_loss(model, batch), text_loss(model, batch)
    looking, reading = looking_losses(model, batch)
    parts = {"drawing": drawing, "text": text, "looking": looking, "reading": reading}
    total = drawing + recipe.text_weight * text + recipe.looking_weight * looking + recipe.reading_weight * reading
    return total, {name: round(float(value.detach()), 4) for name, value in parts.items()}


def train(
    model: JanusForConditionalGeneration,
    recipe: Recipe,
    folder: Path,
    device: torch.device,
    compiled: bool = False,
    stop_at: int | None = None,
    workers: int = 1,
) -> None:
    """Train in place, from the checkpoint in `folder` if there is one; metrics go to `metrics.jsonl` there.

    Sequences are short, so plain attention is faster than the fused kernel on a CPU; `compiled` costs two minutes at
    the start and saves a third of every step. `stop_at` ends the run early, as an interruption would;
    `workers` processes make the lessons ahead.
    """
    folder.mkdir(parents=True, exist_ok=True)
    nn.Module.to(model, device).train()
    model.model.language_model.set_attn_implementation("eager")
    if compiled:
        model.model.language_model.compile(dynamic=True)
    model.model.vqmodel.requires_grad_(False).eval()
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(weights, betas=(0.9, 0.98), weight_decay=recipe.weight_decay)
    start = _resume(model, optimiser, folder / "checkpoint.pt")
    hedge_from = int(recipe.steps * (1 - recipe.hedge_share))
    lessons = Lessons(build_tokenizer(), recipe.plan, recipe.seed, recipe.steps, hedge_from)
    sampler, ahead = range(start, stop_at or recipe.steps), 8 if workers else None
    loader = DataLoader(lessons, batch_size=None, sampler=sampler, num_workers=workers, prefetch_factor=ahead)
    began = time.monotonic()
    with (folder / "metrics.jsonl").open("a") as log:
        for step, batch in enumerate(loader, start=start):
            parts = _step(model, optimiser, batch.to(device), step, recipe)
            if step % 20 == 0:
                line = {"step": step, **parts, "seconds": round(time.monotonic() - began)}
                log.write(json.dumps(line) + "\n")
                log.flush()
                logger.info("pretraining %s", line)
            if (step + 1) % recipe.checkpoint_every == 0 or step + 1 == recipe.steps:
                _save(model, optimiser, step + 1, folder / "checkpoint.pt")
    model.eval()


def _step(
    model: JanusForConditionalGeneration, optimiser: torch.optim.Optimizer, batch: Batch, step: int, recipe: Recipe
) -> dict[str, float]:
    """Take one optimiser step; return the parts of the loss and the gradient's norm."""
    for group in optimiser.param_groups:
        group["lr"] = learning_rate_at(step, recipe)
    with torch.autocast(batch.pixels.device.type, dtype=torch.bfloat16):
        loss, parts = step_losses(model, batch, recipe)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_([p for group in optimiser.param_groups for p in group["params"]], 1.0)
    optimiser.step()
    return {**parts, "grad_norm": round(float(norm), 3)}


def _save(model: nn.Module, optimiser: torch.optim.Optimizer, step: int, path: Path) -> None:
    """Write a checkpoint atomically."""
    temporary = path.with_suffix(".partial")
    torch.save({"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step}, temporary)
    os.replace(temporary, path)


def _resume(model: nn.Module, optimiser: torch.optim.Optimizer, path: Path) -> int:
    """Load a checkpoint if there is one; return the step to go on with."""
    if not path.exists():
        return 0
    state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    logger.info("resumed pretraining at step %d", state["step"])
    return int(state["step"])
