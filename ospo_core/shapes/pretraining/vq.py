"""Pretraining of the VQ model: pictures of random cells, cosine codebook, in contiguous float32.

The world has a small, known set of cell contents, so every content gets a code of its own: the encoder learns to align
its latent with that code (cross-entropy over cosines), the decoder learns to draw the cell from the code's vector, and
the codebook is trained with both. Learning the codes without labels was many times slower, and reviving dead codes
filled the codebook with copies of the background (docs/lab-notes.md). Labels are used only here: the resulting model
encodes and decodes pictures like any other VQ model.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import JanusVQVAE

from ospo_core.artifacts.ids import derive_seed
from ospo_core.models.pictures import to_pixels
from ospo_core.shapes.pretraining.model import load_checkpoint, save_checkpoint
from ospo_core.shapes.render import BACKGROUND, render
from ospo_core.shapes.world import GRID, Grid, glyphs

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VqRecipe:
    """Hyperparameters; docs/lab-notes.md describes how the shipped weights were trained."""

    steps: int = 4000
    encoder_steps: int = 700
    batch_size: int = 16
    learning_rate: float = 2e-3
    temperature: float = 0.05
    empty_share: float = 0.3
    noise: float = 0.03
    checkpoint_every: int = 200
    seed: int = 11


def random_grids(count: int, generator: np.random.Generator, empty_share: float) -> Grid:
    """Return grids [count, GRID, GRID] whose cells are drawn independently: every glyph in every context.

    The share of empty cells varies from picture to picture, and is `empty_share` on average.
    """
    grids = generator.integers(1, len(glyphs()), size=(count, GRID, GRID)).astype(np.int16)
    grids[generator.random(grids.shape) < 2 * empty_share * generator.random((count, 1, 1))] = 0
    return grids


def encoder_loss(vq: JanusVQVAE, pixels: Tensor, codes: Tensor, recipe: VqRecipe) -> Tensor:
    """Return the cross-entropy of the correct codes; pixels [N, 3, H, W] in -1..1, codes [N, GRID, GRID]."""
    noisy = pixels + recipe.noise * torch.randn_like(pixels)
    unit = F.normalize(vq.quant_conv(vq.encoder(noisy)), dim=1)
    codebook = F.normalize(vq.quantize.embedding.weight, dim=1)
    return F.cross_entropy(torch.einsum("ndhw,kd->nkhw", unit, codebook) / recipe.temperature, codes)


def decoder_loss(vq: JanusVQVAE, pixels: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the decoder's weighted error and the unweighted mean squared error; arguments as in `encoder_loss`.

    Foreground pixels have three times the weight of background pixels, because most of a picture is background.
    """
    codebook = F.normalize(vq.quantize.embedding.weight, dim=1)
    restored = vq.decoder(vq.post_quant_conv(codebook[codes].permute(0, 3, 1, 2)))
    paper = pixels.new_tensor([value / 127.5 - 1.0 for value in BACKGROUND]).view(1, 3, 1, 1)
    weight = 1.0 + 2.0 * ((pixels - paper).abs().amax(dim=1, keepdim=True) > 0.1).float()
    squared = (restored - pixels) ** 2
    draw = (weight * (squared + 0.2 * (restored - pixels).abs())).mean()
    return draw, squared.mean().detach()


def train_vq(
    vq: JanusVQVAE,
    recipe: VqRecipe,
    device: torch.device,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
    checkpoint: Path | None = None,
    stop_at: int | None = None,
) -> None:
    """Train the VQ model in place, from `checkpoint` if that file exists; deterministic per recipe and machine.

    Encoder and code vectors are trained for `encoder_steps`; after that only the decoder is. `stop_at` is the step
    before which to stop, as if interrupted.
    """
    nn.Module.to(vq, device).train()
    optimiser = torch.optim.AdamW(vq.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)
    start = load_checkpoint(checkpoint, vq, [optimiser]) if checkpoint is not None else 0
    for step in range(start, recipe.steps if stop_at is None else stop_at):
        if step == start or step == recipe.encoder_steps:
            for part in (vq.encoder, vq.quant_conv, vq.quantize):
                part.requires_grad_(step < recipe.encoder_steps)
        for group in optimiser.param_groups:
            group["lr"] = recipe.learning_rate * min(1.0, (step + 1) / 50, 0.02 + 2 * (1 - step / recipe.steps))
        figures = _step(vq, optimiser, step, recipe, device)
        if on_step is not None and (step % 50 == 0 or step == recipe.steps - 1):
            on_step(step, figures)
        if checkpoint is not None and (step + 1) % recipe.checkpoint_every == 0:
            save_checkpoint(checkpoint, vq, [optimiser], step + 1)
    vq.requires_grad_(True).eval()


def _step(
    vq: JanusVQVAE, optimiser: torch.optim.Optimizer, step: int, recipe: VqRecipe, device: torch.device
) -> dict[str, float]:
    """Do one step on pictures that depend only on seed and step; return the parts of its loss."""
    grids = random_grids(recipe.batch_size, np.random.default_rng([recipe.seed, step]), recipe.empty_share)
    torch.manual_seed(derive_seed("vq noise", recipe.seed, step))
    codes = torch.from_numpy(grids.astype(np.int64)).to(device)
    pixels = to_pixels(render(grids)).to(device).contiguous()
    draw, error = decoder_loss(vq, pixels, codes)
    classify = encoder_loss(vq, pixels, codes, recipe) if step < recipe.encoder_steps else draw.new_zeros(())
    optimiser.zero_grad(set_to_none=True)
    (classify + draw).backward()
    nn.utils.clip_grad_norm_(vq.parameters(), 1.0)
    optimiser.step()
    return {"classify": float(classify.detach()), "draw": float(draw.detach()), "mse": float(error)}
