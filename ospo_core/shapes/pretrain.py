"""Pretraining of the tiny Janus on random lessons; resumable, on a CPU or a GPU.

The VQ model is trained apart (`pretrain_vq`) and stays frozen here. Its codes are the glyph numbers, so the codes of a
picture are known without encoding it. Learning rate: warm-up, constant, linear decay; captions turn partly wrong for
the last part (`hedge_share`), see `lessons`.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import JanusForConditionalGeneration

from ospo_core.shapes.batches import Batch, LessonPlan, Lessons
from ospo_core.shapes.checkpoints import load_checkpoint, save_checkpoint
from ospo_core.shapes.optimisers import Optimisers
from ospo_core.shapes.teaching import lesson_losses
from ospo_core.shapes.tiny import tiny_config
from ospo_core.shapes.tokenizer import BOS, EOS, IMAGE, PAD, build_tokenizer, token_id

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class Recipe:
    """Numbers of the pretraining; docs/lab-notes.md says how the shipped weights came about."""

    steps: int = 7500
    learning_rate: float = 1e-3
    matrix_rate: float = 2e-3
    warmup_steps: int = 100
    decay_share: float = 0.4
    hedge_share: float = 0.16
    weight_decay: float = 0.02
    drawing_weight: float = 1.0
    text_weight: float = 1.0
    caption_weight: float = 0.5
    answer_weight: float = 1.0
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


def rate_at(step: int, recipe: Recipe) -> float:
    """Return the learning rate of a step as a share of the highest: warm-up, constant, linear decay to a twentieth."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    decay_from = int(recipe.steps * (1 - recipe.decay_share))
    if step < decay_from:
        return 1.0
    return 1 - 0.95 * (step - decay_from) / max(1, recipe.steps - decay_from)


def step_losses(model: JanusForConditionalGeneration, batch: Batch, recipe: Recipe) -> tuple[Tensor, dict[str, float]]:
    """Return the weighted loss of a batch and its parts."""
    parts = lesson_losses(model, batch)
    total = sum((getattr(recipe, f"{name}_weight") * value for name, value in parts.items()), torch.zeros(()))
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
    optimisers = Optimisers(model, recipe.learning_rate, recipe.matrix_rate, recipe.weight_decay)
    start = load_checkpoint(folder / CHECKPOINT, model, optimisers)
    hedge_from = int(recipe.steps * (1 - recipe.hedge_share))
    lessons = Lessons(build_tokenizer(), recipe.plan, recipe.seed, recipe.steps, hedge_from)
    sampler, ahead = range(start, stop_at or recipe.steps), 8 if workers else None
    loader = DataLoader(lessons, batch_size=None, sampler=sampler, num_workers=workers, prefetch_factor=ahead)
    began = time.monotonic()
    with (folder / "metrics.jsonl").open("a") as log:
        for step, batch in enumerate(loader, start=start):
            parts = _step(model, optimisers, batch.to(device), step, recipe)
            if step % 20 == 0:
                line = {"step": step, **parts, "seconds": round(time.monotonic() - began)}
                log.write(json.dumps(line) + "\n")
                log.flush()
                logger.info("pretraining %s", line)
            if (step + 1) % recipe.checkpoint_every == 0 or step + 1 == recipe.steps:
                save_checkpoint(folder / CHECKPOINT, model, optimisers, step + 1)
    model.eval()


def _step(
    model: JanusForConditionalGeneration, optimisers: Optimisers, batch: Batch, step: int, recipe: Recipe
) -> dict[str, float]:
    """Take one optimiser step; return the parts of the loss and the gradient's norm."""
    with torch.autocast(batch.pixels.device.type, dtype=torch.bfloat16):
        loss, parts = step_losses(model, batch, recipe)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(optimisers.parameters, 1.0)
    optimisers.step(rate_at(step, recipe))
    return {**parts, "grad_norm": round(float(norm), 3)}
