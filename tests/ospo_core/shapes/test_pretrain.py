"""Lessons and pretraining: words are known, packing changes nothing, an interrupted run ends as if undisturbed."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from ospo_core.schema import SubCategory
from ospo_core.shapes.batches import Batch, LessonPlan, Lessons, pack
from ospo_core.shapes.heldout import draw_heldout, heldout_texts, invent_for_training
from ospo_core.shapes.lessons import SHAPES_FAMILY, drawing_lesson, looking_lessons, text_lesson
from ospo_core.shapes.optimisers import Optimisers
from ospo_core.shapes.passages import NOTHING, Part
from ospo_core.shapes.pretrain import Recipe, build_model, rate_at, train
from ospo_core.shapes.pretrain_vq import VqRecipe, random_grids, train_vq
from ospo_core.shapes.teaching import lesson_losses
from ospo_core.shapes.tokenizer import build_tokenizer

SMALL = LessonPlan(drawings=4, texts=3, pictures=3, questions=2)
CPU = torch.device("cpu")


def test_the_tokenizer_knows_every_word_of_every_lesson() -> None:
    tokenizer, rng = build_tokenizer(), random.Random(0)
    for _ in range(60):
        text, (_, about) = text_lesson(rng), looking_lessons(rng, 4)
        drawing = drawing_lesson(rng, 0.4, 0.1, 0.5)
        texts = [f"{SHAPES_FAMILY.chat_text(lesson.instruction)} {lesson.answer}" for lesson in (text, *about)]
        for sentence in (*texts, SHAPES_FAMILY.generation_text(drawing.prompt)):
            ids = tokenizer(sentence)["input_ids"]
            assert ids[0] == tokenizer.bos_token_id and tokenizer.unk_token_id not in ids, sentence
            assert tokenizer.decode(ids[1:]) == sentence


def test_lessons_depend_on_seed_and_step_alone() -> None:
    lessons = [Lessons(build_tokenizer(), SMALL, seed, 10, 5) for seed in (1, 1, 2)]
    first, again, other = (each[3] for each in lessons)
    assert all(torch.equal(a, b) for a, b in zip(vars(first).values(), vars(again).values(), strict=True))
    assert first.tokens.shape != other.tokens.shape or not torch.equal(first.tokens, other.tokens)


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


def test_items_are_packed_longest_first_where_they_fit() -> None:
    assert pack([3, 9, 5, 2, 4], 10) == [[1], [2, 4], [0, 3]]
    assert pack([12, 1], 10) == [[0], [1]]


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
    states = optimisers.state_dict()
    fresh = Optimisers(model, 1e-3, 2e-3, 0.0)
    fresh.load_state_dict(states)
    assert [len(state["state"]) for state in fresh.state_dict()] == [len(state["state"]) for state in states]


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


def test_heldout_prompts_are_those_in_the_file_and_never_taught() -> None:
    assert {row["prompt"] for row in draw_heldout()} == heldout_texts()
    rng = random.Random(0)
    for sub_category in SubCategory:
        for _ in range(50):
            assert invent_for_training(sub_category, rng).text() not in heldout_texts()
