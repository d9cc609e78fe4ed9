"""Held-out sentences are those of the shipped file, and no training sentence is one of them."""

from __future__ import annotations

import random

from ospo_core.schema import SubCategory
from ospo_core.shapes.sentences import draw_heldout, heldout_texts, random_training_sentence


def test_heldout_prompts_are_those_in_the_file_and_never_taught() -> None:
    assert {row["prompt"] for row in draw_heldout()} == heldout_texts()
    rng = random.Random(0)
    for sub_category in SubCategory:
        for _ in range(50):
            assert random_training_sentence(sub_category, rng).text() not in heldout_texts()
