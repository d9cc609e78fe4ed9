"""Pretraining of the VQ model: it learns, an interrupted run ends the same, cells are as empty as asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ospo_core.shapes.pretraining.model import build_model
from ospo_core.shapes.pretraining.vq import VqRecipe, random_grids, train_vq

CPU = torch.device("cpu")


def test_the_vq_model_learns() -> None:
    vq, seen = build_model(0).model.vqmodel, []
    train_vq(vq, VqRecipe(steps=6, batch_size=2), CPU, lambda step, figures: seen.append(figures))
    assert seen[-1]["classify"] < seen[0]["classify"] and not vq.training


def test_an_interrupted_vq_training_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    recipe = VqRecipe(steps=6, encoder_steps=3, batch_size=2, checkpoint_every=2)
    whole, halted, resumed = (build_model(seed).model.vqmodel for seed in (0, 0, 1))
    train_vq(whole, recipe, CPU)
    train_vq(halted, recipe, CPU, checkpoint=tmp_path / "vq.pt", stop_at=4)
    train_vq(resumed, recipe, CPU, checkpoint=tmp_path / "vq.pt")
    for name, value in whole.state_dict().items():
        assert torch.allclose(value, resumed.state_dict()[name], atol=1e-5), name


def test_random_grids_have_the_asked_share_of_empty_cells() -> None:
    grids = random_grids(400, np.random.default_rng(0), 0.3)
    assert 0.25 < float((grids == 0).mean()) < 0.35
