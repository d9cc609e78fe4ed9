"""Pretraining of the model: packing changes no loss, every parameter is trained, an interrupted run ends the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ospo_core.shapes.pretraining.batches import NOTHING, Batch, LessonPlan, Lessons, Part
from ospo_core.shapes.pretraining.janus import Optimisers, Recipe, lesson_losses, rate_at, train
from ospo_core.shapes.pretraining.model import build_model, build_tokenizer

SMALL = LessonPlan(drawings=4, texts=3, pictures=3, questions=2)
CPU = torch.device("cpu")


def sequences(batch: Batch) -> list[Batch]:
    """Cut packed rows into one batch a sequence: a passage, or a picture with one thing asked about it."""
    cut: list[Batch] = []
    picture = 0
    for row, passages in enumerate(batch.passages):
        for passage in range(int(passages.max()) + 1):
            own = passages == passage
            looks = bool((batch.seen[row][own] != NOTHING).any())
            asked = int(batch.segments[row][own].max())
            for segment in range(1, asked + 1) if asked else [0]:
                kept = own & ((batch.segments[row] == 0) | (batch.segments[row] == segment))
                fields = {k: v[row][kept][None] for k, v in vars(batch).items() if k != "pixels"}
                pixels = batch.pixels[picture : picture + 1] if looks else batch.pixels[:0]
                cut.append(Batch(**fields, pixels=pixels))
            picture += looks
    return cut


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_packed_lessons_have_the_losses_of_separate_ones(attention: str) -> None:
    model = build_model(0).eval()
    model.model.language_model.set_attn_implementation(attention)
    batch = Lessons(build_tokenizer(), SMALL, 4, 10, 5)[0]
    totals, counts = dict.fromkeys(["drawing", "text", "caption", "answer"], 0.0), dict.fromkeys(range(4), 0)
    with torch.no_grad():
        packed = lesson_losses(model, batch)
        for one in sequences(batch):
            losses = lesson_losses(model, one)
            labelled = [one.drawn != NOTHING, *(one.parts == part for part in Part)]
            for number, (name, where) in enumerate(zip(totals, labelled, strict=True)):
                if where.any():
                    totals[name] += float(losses[name]) * int(where.sum())
                    counts[number] += int(where.sum())
    for count, (name, total) in zip(counts.values(), totals.items(), strict=True):
        assert count > 0
        assert float(packed[name]) == pytest.approx(total / count, rel=1e-4), name


def test_every_parameter_but_the_frozen_ones_has_one_optimiser() -> None:
    model = build_model(0)
    model.model.vqmodel.requires_grad_(False)
    optimisers = Optimisers(model, 1e-3, 2e-3, 0.0)
    before = {name: value.clone() for name, value in model.named_parameters()}
    batch = Lessons(build_tokenizer(), SMALL, 4, 10, 5)[0]
    sum(lesson_losses(model, batch).values(), torch.zeros(())).backward()
    optimisers.step(1.0)
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    unused = {name for name, value in model.named_parameters() if not value.requires_grad}
    assert not moved & unused and all(name.startswith("model.vqmodel") for name in unused)
    assert "model.language_model.layers.0.self_attn.q_proj.weight" in moved and "lm_head.weight" in moved
    trained = [value for one in optimisers.each for group in one.param_groups for value in group["params"]]
    assert len(trained) == len(set(map(id, trained))) == len(before) - len(unused)


def test_an_interrupted_pretraining_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    recipe = Recipe(steps=4, warmup_steps=1, checkpoint_every=2, plan=SMALL)
    whole, halted = build_model(1), build_model(1)
    train(whole, recipe, tmp_path / "whole", CPU, workers=0)
    train(halted, recipe, tmp_path / "halted", CPU, stop_at=2, workers=0)
    resumed = build_model(2)
    train(resumed, recipe, tmp_path / "halted", CPU, workers=0)
    for name, value in whole.state_dict().items():
        if not name.startswith("model.vqmodel"):
            assert torch.allclose(value, resumed.state_dict()[name], atol=1e-6), name


def test_the_rate_warms_up_stays_and_falls() -> None:
    recipe = Recipe(steps=100, warmup_steps=10, decay_share=0.5)
    assert [round(rate_at(step, recipe), 3) for step in (0, 9, 40, 75, 100)] == [0.1, 1.0, 1.0, 0.525, 0.05]
