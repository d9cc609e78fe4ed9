"""Filters: every drop has its reason, and nothing good is dropped."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ospo_core.prompts import filters
from ospo_core.prompts.filters import ContaminationCheck, Deduplicator
from ospo_core.prompts.shingles import ShingleIndex, jaccard, shingles

LONG = "a striped red circle above a blue square and a green heart below a small yellow star near a box"


def test_normalise_levels_case_unicode_punctuation_and_space() -> None:
    assert filters.normalise("  A  “Red” Circle, above ﬁve: it's. ") == "a red circle above five its"


def test_duplicates_are_found_whatever_their_spelling_and_order_is_kept() -> None:
    check = Deduplicator()
    prompts = ["a red circle", "A red circle.", "a blue star", "a  red circle"]
    assert [check(prompt) for prompt in prompts] == [None, filters.DUPLICATE, None, filters.DUPLICATE]


def test_taken_prompts_are_duplicates_from_the_start() -> None:
    assert Deduplicator(taken=["a red circle"])("a red circle") == filters.DUPLICATE


def test_near_duplicates_are_found_only_below_similarity_one_and_only_in_long_prompts() -> None:
    changed = LONG.replace("box", "tree")
    assert Deduplicator(0.8, [LONG])(changed) == filters.NEAR_DUPLICATE
    assert Deduplicator(1.0, [LONG])(changed) is None
    assert Deduplicator(0.1, ["a red circle and a star"])("a red circle and a") is None


def test_a_near_duplicate_is_not_kept_for_later_comparisons() -> None:
    check = Deduplicator(0.8)
    assert [check(LONG), check(LONG.replace("box", "tree"))] == [None, filters.NEAR_DUPLICATE]
    assert check.check(LONG.replace("box", "tree")) == filters.NEAR_DUPLICATE


TEXTS = st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=12), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9, 1.0]))
def test_the_index_finds_exactly_what_comparing_all_pairs_finds(texts: list[list[str]], threshold: float) -> None:
    index = ShingleIndex(threshold)
    for at, words in enumerate(texts):
        brute = any(jaccard(shingles(words), shingles(other)) >= threshold for other in texts[:at])
        assert index.has_similar(words) == brute
        index.add(words)


def test_contamination_is_equality_or_near_equality_but_not_sharing_an_object() -> None:
    check = ContaminationCheck(["a red circle", LONG])
    assert check("A red circle!") == filters.CONTAMINATED
    assert check(LONG + " now") == filters.CONTAMINATED
    assert check("a red circle left of a blue star") is None
    assert ContaminationCheck()("anything") is None


@pytest.mark.parametrize("prompt", ["five red circles", "12 stars", "twenty-five cats", "a dozen eggs", "1,000 birds."])
def test_numbers_above_four_are_dropped(prompt: str) -> None:
    assert filters.number_above_four(prompt) == filters.NUMBER_ABOVE_FOUR


@pytest.mark.parametrize("prompt", ["four red circles", "3 stars", "a five-pointed star", "no one - ever", "a freight"])
def test_other_prompts_are_not(prompt: str) -> None:
    assert filters.number_above_four(prompt) is None


def test_a_perturbation_must_say_something_new() -> None:
    problem = filters.perturbation_problem
    assert problem("A circle.", "a circle", []) == filters.EQUAL_TO_BASE
    assert problem("a star and a circle", "a circle and a star", []) == filters.EQUAL_TO_BASE
    assert problem("a star", "a circle", ["a star"]) == filters.SAME_AS_EARLIER_VARIANT
    assert problem("six stars", "two stars", []) == filters.NUMBER_ABOVE_FOUR
    assert problem("a star left of a circle", "a circle left of a star", []) is None


def test_dense_prompts_must_differ() -> None:
    assert filters.dense_problem("a star .", "A star") == filters.DENSE_EQUAL
    assert filters.dense_problem("a star", "a heart") is None


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(max_codepoint=127), max_size=40))
def test_plain_text_is_levelled_like_any_other(text: str) -> None:
    longer = filters.normalise(text + " \N{LATIN SMALL LETTER E WITH ACUTE}")  # takes the way of all Unicode
    assert f"{filters.normalise(text)} \N{LATIN SMALL LETTER E WITH ACUTE}".strip() == longer
