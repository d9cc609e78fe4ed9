"""T2I-CompBench: phrases, relations and numbers read from prompts, and scores from detections made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ospo_core.evaluation.benchmarks.compbench import (
    Relation,
    attribute_score,
    count_score,
    counts_of,
    depth_relation,
    noun_phrases,
    relation_score,
    singular,
    spatial_relation,
)
from ospo_core.evaluation.benchmarks.detections import Box, Detection


@pytest.mark.parametrize(
    ("prompt", "phrases"),
    [
        ("a green bench and a blue bowl", ["a green bench", "a blue bowl"]),
        ("The tin pen and fluffy pad jot on the oak desk.", ["The tin pen", "fluffy pad", "the oak desk"]),
        ("a painting on the left of a butterfly", ["a painting", "a butterfly"]),
        ("The knob was attached firmly to the door.", ["The knob", "the door"]),
        ("a wool rug, a tin cup", ["a wool rug", "a tin cup"]),
    ],
)
def test_phrases(prompt: str, phrases: list[str]) -> None:
    assert noun_phrases(prompt) == phrases


def test_relations_of_prompts() -> None:
    assert spatial_relation("a girl on the top of a frog") == Relation("person", "on the top of", "frog")
    assert spatial_relation("the red hat was on top of the coat rack.") == Relation("red hat", "on top of", "coat rack")
    assert spatial_relation("a bee on side of a key") == Relation("bee", "on side of", "key")
    assert depth_relation("a phone hidden by a man") == Relation("phone", "hidden by", "person")
    assert spatial_relation("a phone hidden by a man") is None is depth_relation("a cat and a dog")


def test_numbers_of_prompts() -> None:
    assert counts_of("four desks, one mouse, three men filled a lively room, and a couch.") == [
        ("desk", 4),
        ("mouse", 1),
        ("person", 3),
        ("couch", 1),
    ]
    assert counts_of("seven televisions") == [("tv", 7)] and counts_of("the sky") == []


@pytest.mark.parametrize(
    ("word", "one"),
    [
        ("boxes", "box"),
        ("cherries", "cherry"),
        ("women", "woman"),
        ("glass", "glass"),
        ("knives", "knife"),
        ("vases", "vase"),
    ],
)
def test_singulars(word: str, one: str) -> None:
    assert singular(word) == one


LEFT = Relation("cat", "on the left of", "dog")
CAT, DOG = Detection("cat", 0.8, Box(0, 0, 10, 10)), Detection("dog", 0.6, Box(50, 0, 60, 10))


@pytest.mark.parametrize(
    ("found", "score"),
    [([CAT, DOG], 0.25 * 1.4 + 0.5), ([CAT], 0.0), ([], 0.0), ([DOG, Detection("cat", 1.0, Box(90, 0, 99, 10))], 0.0)],
)
def test_a_relation_counts_half_and_each_object_a_quarter(found: list[Detection], score: float) -> None:
    assert relation_score(LEFT, found) == pytest.approx(score)


def test_a_relation_in_depth_has_no_lower_limit() -> None:
    assert relation_score(Relation("cat", "behind", "dog"), [CAT], np.zeros((60, 60))) == pytest.approx(0.2)


def test_counts_give_half_for_presence_and_half_for_the_number() -> None:
    found = [Detection("cat", 0.9, Box(x, 0, x + 5, 5)) for x in (0, 10)] + [DOG]
    assert count_score(counts_of("two cats and one dog"), found) == 1.0
    assert count_score(counts_of("three cats and one dog"), found) == 0.75
    assert count_score(counts_of("two cats and one bee"), found) == 0.5
    assert count_score([], found) == 0.0


def test_attributes_are_a_product() -> None:
    assert attribute_score([0.5, 0.5]) == 0.25 and attribute_score([]) == 1.0
