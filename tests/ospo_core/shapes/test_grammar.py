"""Sentences survive the way to text and back; what is no sentence is refused with the word that is wrong."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ospo_core.schema import SubCategory
from ospo_core.shapes.grammar import GrammarError, Noun, Sentence, is_drawable, parse, parse_dense
from ospo_core.shapes.placement import place
from ospo_core.shapes.sentences import random_sentence

SEEDS = st.integers(0, 10_000)


@given(sub_category=st.sampled_from(SubCategory), seed=SEEDS)
@settings(max_examples=80, deadline=None)
def test_text_round_trip(sub_category: SubCategory, seed: int) -> None:
    rng = random.Random(seed)
    sentence = random_sentence(sub_category, rng)
    cells = place(sentence, rng)
    assert is_drawable(sentence)
    assert parse(sentence.text()) == sentence
    assert parse_dense(sentence.text(cells)) == (sentence, cells)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("red circle", "article"),
        ("a red cube", "shape"),
        ("an red circle", "article"),
        ("a red circle beside a blue star", "beside"),
        ("two red circle", "shape"),
        ("five red circles", "article"),
        ("a red circle at", "cell"),
    ],
)
def test_what_is_no_sentence_is_refused(text: str, word: str) -> None:
    with pytest.raises(GrammarError, match=word):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "a red circle and a red circle",
        "a circle and a red circle",
        "four red circles and three blue stars",
        "a red box",
        "a red circle inside a blue star",
        "a striped red circle touching a blue star",
        "two red circles left of a blue star",
    ],
)
def test_sentences_without_pictures_are_not_drawable(text: str) -> None:
    assert not is_drawable(parse(text))


def test_two_ways_to_say_the_same_have_one_meaning() -> None:
    assert parse("a red circle left of a blue star").meaning() == parse("a blue star right of a red circle").meaning()
    assert parse("a red circle and a blue star").meaning() == parse("a blue star and a red circle").meaning()
    assert parse("a red circle above a blue star").meaning() != parse("a blue star above a red circle").meaning()


def test_article_and_plural() -> None:
    assert Sentence((Noun("star", "orange"),)).text() == "an orange star"
    assert Sentence((Noun("star", "orange", "dotted", 3),)).text() == "three dotted orange stars"
