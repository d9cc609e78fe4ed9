"""Filters: every drop has its reason, and nothing good is dropped."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ospo_core.prompts import filters
from ospo_core.prompts.filters import ContaminationCheck, Deduplicator
from ospo_core.prompts.shingles import ShingleIndex, Shingles, jaccard
from tests.support.simple_filters import SimpleDeduplicator, are_near, normalised

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


THRESHOLDS = st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0]) | st.floats(0, 1)


@st.composite
def prompt_lists(draw: st.DrawFn) -> list[str]:
    """Return texts of few words, so that they share shingles, and changed copies of them, so that some are near."""
    words = draw(st.sampled_from(["ab", "abcdefgh"]))
    texts = draw(st.lists(st.lists(st.sampled_from(words), min_size=1, max_size=30), min_size=1, max_size=8))
    for _ in range(draw(st.integers(0, 12))):
        copy = list(draw(st.sampled_from(texts)))
        place = draw(st.integers(0, len(copy)))
        copy[place : place + draw(st.integers(0, 1))] = draw(st.lists(st.sampled_from(words), max_size=2))
        texts.append(copy)
    return [" ".join(text) for text in texts]


@settings(max_examples=300, deadline=None)
@given(prompt_lists(), THRESHOLDS)
def test_decisions_are_those_of_comparing_all_pairs(prompts: list[str], similarity: float) -> None:
    check, simple = Deduplicator(similarity), SimpleDeduplicator(similarity)
    for prompt in prompts:
        before = check.check(prompt)
        assert before == check(prompt) == simple(prompt)


@settings(max_examples=200, deadline=None)
@given(prompt_lists(), THRESHOLDS, st.integers(0, 8))
def test_what_is_known_earlier_counts_as_if_it_were_in_one_list(prompts: list[str], near: float, known: int) -> None:
    earlier, simple = Deduplicator(near), SimpleDeduplicator(near)
    expected = [simple(prompt) for prompt in prompts]
    assert [earlier(prompt) for prompt in prompts[:known]] == expected[:known]
    check = Deduplicator(near, earlier=earlier)
    for prompt, reason in zip(prompts[known:], expected[known:], strict=True):
        assert check.check(prompt) == check(prompt) == reason


@settings(max_examples=200, deadline=None)
@given(prompt_lists(), THRESHOLDS, st.integers(1, 8))
def test_contamination_is_what_duplicates_a_known_prompt(prompts: list[str], similarity: float, known: int) -> None:
    check, simple = ContaminationCheck(prompts[:known], similarity), Deduplicator(similarity, prompts[:known])
    for prompt in prompts:
        assert (check(prompt) is not None) == (simple.check(prompt) is not None)


@settings(max_examples=100, deadline=None)
@given(prompt_lists(), THRESHOLDS)
def test_equal_hashes_of_different_shingles_change_no_decision(prompts: list[str], similarity: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ospo_core.prompts.shingles.hash", lambda item: len(str(item)) % 5, raising=False)
        check, simple = Deduplicator(similarity), SimpleDeduplicator(similarity)
        assert [check(prompt) for prompt in prompts] == [simple(prompt) for prompt in prompts]


@settings(max_examples=200, deadline=None)
@given(prompt_lists(), THRESHOLDS)
def test_the_index_finds_exactly_what_comparing_all_pairs_finds(texts: list[str], threshold: float) -> None:
    index = ShingleIndex(threshold)
    for at, text in enumerate(texts):
        assert index.has_similar(text) == any(are_near(text, other, threshold) for other in texts[:at])
        index.add(text)


@settings(max_examples=200, deadline=None)
@given(st.text() | st.text(alphabet="aB1_ '\u2019.,\ufb01\u0130\u00df\n-"))
def test_normalising_is_what_its_definition_says(text: str) -> None:
    assert filters.normalise(text) == normalised(text)


def test_few_texts_are_compared_although_all_are_made_of_few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []

    def counting(first: Shingles, second: Shingles) -> float:
        compared.append(1)
        return jaccard(first, second)

    monkeypatch.setattr("ospo_core.prompts.shingles.jaccard", counting)
    rng, check = random.Random(0), Deduplicator(0.9)
    prompts = [" ".join(rng.choices("abcdefgh", k=rng.randint(8, 25))) for _ in range(4000)]
    assert not any(check(prompt) for prompt in prompts)
    assert len(compared) < len(prompts)


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
