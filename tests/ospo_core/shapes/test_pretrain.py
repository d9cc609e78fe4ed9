"""Lessons and pretraining: words are known, packing changes nothing, an interrupted run ends as if undisturbed."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from ospo_core.schema import SubCategory
from ospo_core.shapes.batches import IGNORED, LessonPlan, Lessons
from ospo_core.shapes.heldout import draw_heldout, heldout_texts, invent_for_training
from ospo_core.shapes.lessons import SHAPES_FAMILY, drawing_lesson, looking_lessons, text_lesson
from ospo_core.shapes.pretrain import Recipe, build_model, learning_rate_at, train
from ospo_core.shapes.pretrain_vq import VqRecipe, random_grids, train_vq
from ospo_core.shapes.teaching import answer_loss, looking_losses
from ospo_core.shapes.tokenizer import build_tokenizer

SMALL = LessonPlan(drawings=4, texts=3, pictures=3, questions=2)
CPU = torch.device("cpu")


def test_the_tokenizer_knows_every_word_of_every_lesson() -> None:
    tokenizer, rng = build_tokenizer(), random.Random(0)
    for _ in range(60):
        text, (_, about) = text_lesson(rng), looking_lessons(rng, 0, 4)
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
    assert first.draw_codes.shape != other.draw_codes.shape or not torch.equal(first.draw_codes, other.draw_codes)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_packed_lessons_have_the_loss_of_separate_ones(attention: str) -> None:
    model = build_model(0).eval()
    model.model.language_model.set_attn_implementation(attention)
    batch = Lessons(build_tokenizer(), SMALL, 4, 10, 5)[0]
    total, count = 0.0, 0
    with torch.no_grad():
        features = model.model.aligner(model.model.vision_model(batch.pixels).last_hidden_state)
        for row, segments in enumerate(batch.look_segments):
            for segment in range(1, int(segments.max()) + 1):
                own = (segments == 0) | (segments == segment)
                ids, labels = batch.look_ids[row][own][None], batch.look_labels[row][own][None]
                slots = (ids == model.config.image_token_id).unsqueeze(-1)
                embedded = model.get_input_embeddings()(ids).masked_scatter(slots, features[row : row + 1])
                hidden = model.model.language_model(inputs_embeds=embedded, use_cache=False).last_hidden_state
                labelled = int((labels != IGNORED).sum())
                total, count = total + float(answer_loss(model, hidden, labels)) * labelled, count + labelled
        assert float(looking_losses(model, batch)[0]) == pytest.approx(total / count, rel=1e-4)


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


def test_learning_rate_warms_up_stays_and_falls() -> None:
    recipe = Recipe(steps=100, warmup_steps=10, decay_share=0.5, learning_rate=1.0)
    assert [round(learning_rate_at(step, recipe), 3) for step in (0, 9, 40, 75, 100)] == [0.1, 1.0, 1.0, 0.525, 0.05]


def test_the_vq_model_learns() -> None:
    vq, seen = build_model(0).model.vqmodel, []
    train_vq(vq, VqRecipe(steps=6, batch_size=2), CPU, lambda step, figures: seen.append(figures))
    assert seen[-1]["classify"] < seen[0]["classify"] and not vq.training


def test_random_grids_have_the_asked_share_of_empty_cells() -> None:
    grids = random_grids(400, np.random.default_rng(0), 0.3)
    assert 0.25 < float((grids == 0).mean()) < 0.35


def test_heldout_prompts_are_those_in_the_file_and_never_taught() -> None:
    assert {row["prompt"] for row in draw_heldout()} == heldout_texts()
    rng = random.Random(0)
    for sub_category in SubCategory:
        for _ in range(50):
            assert invent_for_training(sub_category, rng).text() not in heldout_texts()
