"""Questions round-trip through text, and a scene shows a sentence exactly when all of it holds and nothing is extra."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ospo_core.schema import PERTURBATIONS, PerturbationKind, SubCategory
from ospo_core.shapes.grammar import GrammarError, parse, parse_dense
from ospo_core.shapes.oracle import answer, direction, questions_of, read_grids, satisfies, shows
from ospo_core.shapes.perturb import is_valid_perturbation, perturbations
from ospo_core.shapes.placement import paint, place, place_alike
from ospo_core.shapes.render import render
from ospo_core.shapes.sentences import random_sentence
from ospo_core.shapes.world import Scene, read_scene
from tests.support.shapes_questions import parse_question


def scene_of(dense: str) -> Scene:
    sentence, cells = parse_dense(dense)
    return read_scene(paint(sentence, cells, random.Random(0)))


@given(sub_category=st.sampled_from(SubCategory), seed=st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_a_drawn_sentence_satisfies_the_oracle_and_its_questions(sub_category: SubCategory, seed: int) -> None:
    rng = random.Random(seed)
    sentence = random_sentence(sub_category, rng)
    grid = paint(sentence, place(sentence, rng), rng)
    picture = render(grid)
    assert (read_grids(picture[None])[0] == grid).all()
    assert satisfies(picture, sentence.text())
    for question in questions_of(sentence):
        assert parse_question(question.text) == question
        assert answer(question, read_scene(grid))


@given(sub_category=st.sampled_from(SubCategory), seed=st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_perturbations_are_valid_and_can_be_placed_like_the_base(sub_category: SubCategory, seed: int) -> None:
    rng = random.Random(seed)
    base = random_sentence(sub_category, rng)
    cells = place(base, rng)
    for kind in set(PERTURBATIONS[sub_category]):
        options = perturbations(base, kind)
        assert options, f"{kind} of {base.text()!r}"
        made = rng.choice(options)
        assert is_valid_perturbation(base.text(), made.sentence.text(), kind)
        others = place_alike(made.sentence, made.origin, cells, rng)
        assert shows(read_scene(paint(made.sentence, others, rng)), made.sentence)


@given(sub_category=st.sampled_from([SubCategory.COLOR_2, SubCategory.NUMERACY_2]), seed=st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_what_and_joins_stands_in_reading_order(sub_category: SubCategory, seed: int) -> None:
    rng = random.Random(seed)
    first, second = place(random_sentence(sub_category, rng), rng)
    assert max(first) < min(second)


def test_a_group_that_comes_later_begins_later() -> None:
    sentence = parse("a red circle above a blue square and a green heart left of a yellow star")
    for seed in range(20):
        cells = place(sentence, random.Random(seed))
        assert min(*cells[0], *cells[1]) < min(*cells[2], *cells[3])


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("is there a red circle ?", True),
        ("is there a circle ?", True),
        ("is there a striped red circle ?", False),
        ("are there two blue stars ?", True),
        ("are there three blue stars ?", False),
        ("are there three objects ?", True),
        ("is there one object ?", False),
        ("is the red circle left of the blue star ?", True),
        ("is the red circle above the blue star ?", True),
        ("is the red circle below the blue star ?", False),
        ("is the red circle at the top ?", True),
        ("is the red circle on the right ?", False),
        ("is the red circle touching the blue star ?", False),
    ],
)
def test_hand_checked_answers(question: str, expected: bool) -> None:
    scene = scene_of("a red circle at a1 and two blue stars at c1 a3")
    assert answer(parse_question(question), scene) is expected


def test_something_extra_is_not_what_was_asked() -> None:
    scene = scene_of("a red circle at a1 and a blue star at c3")
    assert shows(scene, parse("a red circle and a blue star"))
    assert not shows(scene, parse("a red circle"))
    assert not shows(scene, parse("a red circle and two blue stars"))


def test_direction_is_that_of_the_larger_distance() -> None:
    assert direction((0, 0), (1, 3)) == "left of"
    assert direction((3, 1), (0, 0)) == "below"
    assert direction((0, 0), (2, 2)) is None


@pytest.mark.parametrize("text", ["is there a red circle", "why ?", "is the red circle ?", "is there a cube ?"])
def test_what_is_no_question_is_refused(text: str) -> None:
    with pytest.raises(GrammarError):
        parse_question(text)


@pytest.mark.parametrize(
    ("base", "negative", "kind", "valid"),
    [
        ("a red circle", "a blue circle", "replace", True),
        ("a red circle", "a blue star", "replace", False),
        ("a red circle", "a red circle", "replace", False),
        ("a red circle left of a blue star", "a red circle right of a blue star", "replace", True),
        ("a red circle and a blue star", "a blue circle and a red star", "swap", True),
        ("a red circle and a blue star", "a blue star and a red circle", "swap", False),
        ("a red circle and a blue star", "a blue star", "drop", True),
        ("two red circles and a blue star", "a red circle and two blue stars", "swap", True),
        ("a red circle and a blue star", "a cube", "drop", False),
    ],
)
def test_exactly_one_detail_of_the_asked_kind(base: str, negative: str, kind: str, valid: bool) -> None:
    assert is_valid_perturbation(base, negative, PerturbationKind(kind)) is valid
