"""Pretraining of the language model and the vision encoder on random lessons; resumable, on a CPU or a GPU.

The VQ model is trained separately (`vq`) and stays frozen here. Its codes are the glyph numbers, so the codes of a
picture are known without encoding it. Learning rate: warm-up, constant, linear decay; in the last part (`hedge_share`)
some captions are wrong, see `lessons`.

Shape letters as in `batches`; H is the hidden size.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import JanusForConditionalGeneration

from ospo_core.shapes.pretraining.batches import NOTHING, Batch, LessonPlan, Lessons, Part
from ospo_core.shapes.pretraining.model import build_tokenizer, load_checkpoint, save_checkpoint

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters; docs/lab-notes.md describes how the shipped weights were trained."""

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

    Sequences are short, so plain attention is faster than the fused kernel on a CPU.

    Args:
        folder: of checkpoint and metrics.
        compiled: costs two minutes at the start and saves a third of every step.
        stop_at: step before which to stop, as if interrupted.
        workers: processes that prepare batches ahead.
    """
    folder.mkdir(parents=True, exist_ok=True)
    nn.Module.to(model, device).train()
    model.model.language_model.set_attn_implementation("eager")
    if compiled:
        model.model.language_model.compile(dynamic=True)
    model.model.vqmodel.requires_grad_(False).eval()
    optimisers = Optimisers(model, recipe.learning_rate, recipe.matrix_rate, recipe.weight_decay)
    start = load_checkpoint(folder / CHECKPOINT, model, optimisers.each)
    hedge_from = int(recipe.steps * (1 - recipe.hedge_share))
    lessons = Lessons(build_tokenizer(), recipe.plan, recipe.seed, recipe.steps, hedge_from)
    sampler, ahead = range(start, stop_at or recipe.steps), 8 if workers else None
    loader = DataLoader(lessons, batch_size=None, sampler=sampler, num_workers=workers, prefetch_factor=ahead)
    began = time.monotonic()
    with (folder / "metrics.jsonl").open("a") as log:
        for step, batch in enumerate(loader, start=start):
            batch = batch.to(device)
            with torch.autocast(device.type, dtype=torch.bfloat16):
                losses = lesson_losses(model, batch)
                loss = sum(
                    (getattr(recipe, f"{name}_weight") * value for name, value in losses.items()), torch.zeros(())
                )
            loss.backward()
            norm = nn.utils.clip_grad_norm_(optimisers.parameters, 1.0)
            optimisers.step(rate_at(step, recipe))
            if step % 20 == 0:
                parts = {name: round(float(value.detach()), 4) for name, value in losses.items()}
                parts["grad_norm"] = round(float(norm), 3)
                line = {"step": step, **parts, "seconds": round(time.monotonic() - began)}
                log.write(json.dumps(line) + "\n")
                log.flush()
                logger.info("pretraining %s", line)
            if (step + 1) % recipe.checkpoint_every == 0 or step + 1 == recipe.steps:
                save_checkpoint(folder / CHECKPOINT, model, optimisers.each, step + 1)
    model.eval()


def rate_at(step: int, recipe: Recipe) -> float:
    """Return the share of the peak learning rate at a step: warm-up, constant, linear decay to a twentieth."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    decay_from = int(recipe.steps * (1 - recipe.decay_share))
    if step < decay_from:
        return 1.0
    return 1 - 0.95 * (step - decay_from) / max(1, recipe.steps - decay_from)


def passage_mask(passages: Tensor, segments: Tensor) -> Tensor:
    """Return the additive attention mask [N, 1, S, S] of packed rows: 0 where visible, else very negative.

    A token sees segment 0 of its passage and its own segment, up to its own position. Padding sees only the first
    token, so that no row is empty. Plain attention adds the mask: a boolean mask would hide nothing.
    """
    length = segments.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    key, query = segments[:, None, :], segments[:, :, None]
    seen = causal & (passages[:, None, :] == passages[:, :, None]) & ((key == 0) | (key == query))
    seen &= passages[:, None, :] != NOTHING
    seen[:, :, 0] |= passages == NOTHING
    hidden = torch.finfo(torch.float32).min
    return torch.zeros(seen.shape, device=seen.device).masked_fill(~seen, hidden).unsqueeze(1)


def embed(model: JanusForConditionalGeneration, batch: Batch) -> Tensor:
    """Return the input embeddings [N, S, H]: words, drawn codes in their slots, picture features in theirs."""
    embeddings = model.get_input_embeddings()(batch.tokens)
    drawn, seen = batch.drawn != NOTHING, batch.seen != NOTHING
    codes = model.prepare_embeddings_for_image_generation(batch.drawn[drawn])
    embeddings = embeddings.masked_scatter(drawn.unsqueeze(-1), codes.to(embeddings.dtype))
    features = model.model.aligner(model.model.vision_model(batch.pixels).last_hidden_state)
    return embeddings.masked_scatter(seen.unsqueeze(-1), features.to(embeddings.dtype))


def lesson_losses(model: JanusForConditionalGeneration, batch: Batch) -> dict[str, Tensor]:
    """Return the cross-entropies of a batch, in nats per token.

    `drawing`: codes after their prompts. `text`, `caption`, `answer`: words (see `Part`). `reading`: the codes of the
    cells seen, predicted with the image head; without it a thousand steps taught the vision encoder nothing.
    """
    hidden = model.model.language_model(
        inputs_embeds=embed(model, batch),
        attention_mask=passage_mask(batch.passages, batch.segments),
        position_ids=batch.positions,
        use_cache=False,
    ).last_hidden_state
    drawn, seen = batch.drawn != NOTHING, batch.seen != NOTHING
    named = torch.cat([hidden[torch.roll(drawn, -1, dims=1)], hidden[seen]])
    drawing, reading = model.model.generation_head(named).float().split([int(drawn.sum()), int(seen.sum())])
    losses = {
        "drawing": F.cross_entropy(drawing, batch.drawn[drawn]),
        "reading": F.cross_entropy(reading, batch.seen[seen]),
    }
    said = batch.parts != NOTHING
    words = model.lm_head(hidden[torch.roll(said, -1, dims=1)]).float()
    each, parts = F.cross_entropy(words, batch.tokens[said], reduction="none"), batch.parts[said]
    chosen = {part.name.lower(): each[parts == part] for part in Part}
    return losses | {name: values.sum() / max(1, len(values)) for name, values in chosen.items()}  # 0 of no values


class Optimisers:
    """Muon for the matrices of the transformer layers, AdamW for everything else, stepped as one.

    Muon (https://kellerjordan.github.io/posts/muon) makes the update of a matrix orthogonal; its rate is scaled to the
    size of AdamW's updates (https://arxiv.org/abs/2502.16982), so both rates are of one order. Frozen parameters are
    excluded.
    """

    def __init__(
        self, model: JanusForConditionalGeneration, rate: float, matrix_rate: float, weight_decay: float
    ) -> None:
        layers: list[nn.Module] = [model.model.language_model.layers, model.model.vision_model.encoder]
        inner = {id(parameter) for part in layers for parameter in part.parameters() if parameter.ndim == 2}
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        matrices = [parameter for parameter in self.parameters if id(parameter) in inner]
        others = [parameter for parameter in self.parameters if id(parameter) not in inner]
        self.each: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, lr=matrix_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=weight_decay),
        ]
        self._rates = (matrix_rate, rate)

    def step(self, share: float) -> None:
        """Do a step at a share of the peak rates, and clear the gradients."""
        for optimiser, rate in zip(self.each, self._rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * share
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
