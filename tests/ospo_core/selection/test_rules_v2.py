"""Rule v2, worked by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from ospo_core.config.sections import SelectionConfig
from ospo_core.errors import StageError
from ospo_core.selection import (
    NO_CHOSEN_CANDIDATE,
    NO_IMAGES,
    NO_QUESTIONS,
    NO_REJECTED_CANDIDATE,
    NO_TEXT_NEGATIVE,
    NOT_FINITE,
    SCORE_NOT_LARGER,
)
from tests.ospo_core.selection.candidates import BASE, NEGATIVE, image
from tests.ospo_core.selection.one_prompt import select_pair
from tests.support.simple_rules import Candidate, Dropped, Selected

V2 = SelectionConfig(rule="v2")
VARIANTS = (0, 1, 2)
WRONG = {0: (0.9, -0.9)}
"""The questions of perturbed prompt 0, one of which is clearly answered with no."""


def select(candidates: Sequence[Candidate], config: SelectionConfig = V2) -> Selected | Dropped:
    return select_pair(candidates, VARIANTS, config)


def selected(candidates: Sequence[Candidate], config: SelectionConfig = V2) -> Selected:
    outcome = select(candidates, config)
    assert isinstance(outcome, Selected), outcome
    return outcome


def test_the_chosen_image_has_the_largest_score_among_those_that_satisfy_every_question() -> None:
    best_on_average = image(0, BASE, (1.0, 1.0, 0.45))  # S = 0.82, but one answer is not above 0.5
    good = image(1, BASE, (0.6, 0.7, 0.8), about=WRONG)  # S = 0.70
    better = image(2, NEGATIVE, (0.7, 0.8, 0.75), about=WRONG)  # S = 0.75
    bad = image(2, BASE, (0.9, 0.9, -0.8))
    assert selected([best_on_average, good, better, bad]).chosen == better


def test_the_rejected_image_is_the_one_whose_log_probability_is_closest() -> None:
    chosen = image(0, BASE, (0.9, 0.9), logprob=-3.0, about=WRONG)
    far_below = image(0, NEGATIVE, (0.9, -0.9), logprob=-4.0)
    close_above = image(1, NEGATIVE, (0.9, -0.6), logprob=-2.75)
    close_below = image(2, NEGATIVE, (-0.9, -0.9), logprob=-3.5)
    pair = selected([chosen, far_below, close_above, close_below])
    assert pair.rejected == close_above
    assert pair.image_gap == -0.25


def test_an_image_without_a_clear_no_is_not_rejected() -> None:
    chosen = image(0, BASE, (0.9, 0.9), about=WRONG)
    unsure = image(0, NEGATIVE, (0.9, -0.5))
    assert select([chosen, unsure]) == Dropped(NO_REJECTED_CANDIDATE)


def test_an_answer_of_exactly_the_threshold_does_not_choose() -> None:
    assert select([image(0, BASE, (0.9, 0.5)), image(1, BASE, (-0.9, 0.9))]) == Dropped(NO_CHOSEN_CANDIDATE)


def test_the_text_negative_is_the_closest_among_prompts_that_the_chosen_image_contradicts() -> None:
    chosen = image(
        0,
        BASE,
        (0.9, 0.9),
        logprob=-3.0,
        negatives=(-4.0, -3.5, -3.01),
        about={0: (0.9, -0.9), 1: (-0.6,), 2: (0.9, -0.5)},
    )
    pair = selected([chosen, image(0, NEGATIVE, (-0.9, 0.9))])
    assert pair.negative_variant == 1  # prompt 2 is closer, but nothing in the image clearly contradicts it
    assert pair.text_gap == 0.5


def test_the_text_negative_is_found_where_a_variant_is_missing() -> None:
    chosen = image(2, BASE, (0.9,), logprob=-3.0, negatives=(-5.0, -3.5), about={2: (-0.9,)})
    pair = select_pair([chosen, image(0, BASE, (-0.9,), negatives=(-3.0, -3.0))], (0, 2), V2)
    assert isinstance(pair, Selected)
    assert (pair.negative_variant, pair.text_gap) == (2, 0.5)


@pytest.mark.parametrize("about", [{}, {0: ()}, {0: (0.9, 0.9), 1: (-0.5,)}])
def test_a_prompt_that_no_perturbed_prompt_contradicts_is_dropped(about: dict[int, tuple[float, ...]]) -> None:
    chosen = image(0, BASE, (0.9, 0.9), about=about)
    assert select([chosen, image(0, NEGATIVE, (-0.9, 0.9))]) == Dropped(NO_TEXT_NEGATIVE)


def test_a_rejected_image_that_scores_higher_is_passed_over() -> None:
    chosen = image(0, BASE, (0.6,) * 10, logprob=-3.0, about=WRONG)  # S = 0.60
    higher = image(0, NEGATIVE, (*(1.0,) * 9, -0.6), logprob=-3.0)  # S = 0.84, with one clear no
    lower = image(1, NEGATIVE, (-0.9,) * 10, logprob=-5.0)
    assert selected([chosen, higher, lower]).rejected == lower
    assert select([chosen, higher]) == Dropped(SCORE_NOT_LARGER)


def test_equal_images_are_decided_by_variant_then_side_whatever_the_order() -> None:
    images = [image(v, side, (0.9,), about=WRONG) for v in (0, 1) for side in (BASE, NEGATIVE)]
    bad = [image(2, side, (-0.9,)) for side in (BASE, NEGATIVE)]
    for candidates in ([*images, *bad], [*bad[::-1], *images[::-1]]):
        pair = selected(candidates)
        assert (pair.chosen, pair.rejected) == (images[0], bad[0])


def test_the_threshold_is_configurable() -> None:
    candidates = [image(0, BASE, (0.3,), about={0: (-0.3,)}), image(1, BASE, (-0.3,))]
    assert select(candidates) == Dropped(NO_CHOSEN_CANDIDATE)
    assert selected(candidates, SelectionConfig(v2_answer_threshold=0.2)).rejected == candidates[1]


def test_an_image_that_was_asked_nothing_is_never_chosen() -> None:
    silent = image(0, BASE, (), about=WRONG)
    assert select([silent, image(1, BASE, (-0.9,))]) == Dropped(NO_CHOSEN_CANDIDATE)
    assert select([silent]) == Dropped(NO_QUESTIONS)


def test_no_image_at_all_is_a_drop() -> None:
    assert select([]) == Dropped(NO_IMAGES)


@pytest.mark.parametrize(
    "broken",
    [
        replace(image(0, BASE, (0.9,)), score=math.nan),
        replace(image(0, BASE, (0.9,)), logprob_base=-math.inf),
        replace(image(0, BASE, (0.9,)), negative_answers={0: (math.nan,)}),
    ],
)
def test_a_number_that_is_not_finite_is_a_drop(broken: Candidate) -> None:
    assert select([broken, image(1, BASE, (-0.9,))]) == Dropped(NOT_FINITE)


@pytest.mark.parametrize(
    "candidates",
    [
        [image(3, BASE, (0.9,))],
        [image(0, BASE, (0.9,), negatives=(-3.0,))],
        [image(0, BASE, (0.9,)), image(0, BASE, (0.8,))],
    ],
    ids=["unknown variant", "missing log-probabilities", "same image twice"],
)
def test_candidates_that_do_not_fit_are_an_error(candidates: list[Candidate]) -> None:
    with pytest.raises(StageError, match="do not fit"):
        select(candidates)
