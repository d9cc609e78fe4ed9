"""Lessons and batches: words are known, a batch depends on seed and step alone, long items are packed first."""

from __future__ import annotations

import random

import torch

from ospo_core.prompts.families import Chat
from ospo_core.shapes.pretraining.batches import LessonPlan, Lessons, pack
from ospo_core.shapes.pretraining.lessons import SHAPES_FAMILY, drawing_lesson, looking_lessons, text_lesson
from ospo_core.shapes.pretraining.model import build_tokenizer

SMALL = LessonPlan(drawings=4, texts=3, pictures=3, questions=2)


def test_the_tokenizer_knows_every_word_of_every_lesson() -> None:
    tokenizer, rng = build_tokenizer(), random.Random(0)
    for _ in range(60):
        text, (_, about) = text_lesson(rng), looking_lessons(rng, 4)
        drawing = drawing_lesson(rng, 0.4, 0.1, 0.5)
        texts = [f"{SHAPES_FAMILY.chat_text(Chat(lesson.instruction))} {lesson.answer}" for lesson in (text, *about)]
        for sentence in (*texts, SHAPES_FAMILY.generation_text(drawing.prompt)):
            ids = tokenizer(sentence)["input_ids"]
            assert ids[0] == tokenizer.bos_token_id and tokenizer.unk_token_id not in ids, sentence
            assert tokenizer.decode(ids[1:]) == sentence


def test_lessons_depend_on_seed_and_step_alone() -> None:
    lessons = [Lessons(build_tokenizer(), SMALL, seed, 10, 5) for seed in (1, 1, 2)]
    first, again, other = (each[3] for each in lessons)
    assert all(torch.equal(a, b) for a, b in zip(vars(first).values(), vars(again).values(), strict=True))
    assert first.tokens.shape != other.tokens.shape or not torch.equal(first.tokens, other.tokens)


def test_items_are_packed_longest_first_where_they_fit() -> None:
    assert pack([3, 9, 5, 2, 4], 10) == [[1], [2, 4], [0, 3]]
    assert pack([12, 1], 10) == [[0], [1]]
