"""The rules worked by hand: v2, v3, which sides they allow, and the ablations."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, get_args

import pytest

from ospo_core.config.sections import SelectionConfig
from ospo_core.errors import StageError
from ospo_core.selection.rules import (
    NO_CHOSEN_CANDIDATE,
    NO_COMPLETE_VARIANT,
    NO_IMAGES,
    NO_PAIR_OF_ONE_VARIANT,
    NO_QUESTIONS,
    NO_REJECTED_CANDIDATE,
    NO_TEXT_NEGATIVE,
    NOT_FINITE,
    RULES,
    SCORE_NOT_LARGER,
)
from tests.support.candidates import BASE, NEGATIVE, image, select_pair
from tests.support.simple_rules import Candidate, Dropped, Selected

VARIANTS = (0, 1, 2)
WRONG = {0: (0.9, -0.9)}
"""The questions of perturbed prompt 0, one of which is clearly answered with no."""


def v2(*candidates: Candidate, **options: Any) -> Selected | Dropped:
    return select_pair(candidates, VARIANTS, SelectionConfig(rule="v2", **options))


def v3(*candidates: Candidate, **options: Any) -> Selected | Dropped:
    return select_pair(candidates, VARIANTS, SelectionConfig(rule="v3", **options))


def best_of_n(*candidates: Candidate) -> Selected | Dropped:
    return select_pair(candidates, VARIANTS, SelectionConfig(rule="best_of_n"))


def unfiltered(*candidates: Candidate, draw: int = 0) -> Selected | Dropped:
    return select_pair(candidates, VARIANTS, SelectionConfig(filtering=False), draw)


def pair(outcome: Selected | Dropped) -> Selected:
    assert isinstance(outcome, Selected), outcome
    return outcome


def test_every_rule_that_can_be_configured_exists() -> None:
    names = get_args(SelectionConfig.model_fields["rule"].annotation)
    assert {*names, "unfiltered"} == set(RULES)


class TestV2:
    def test_the_chosen_image_has_the_largest_score_among_those_that_satisfy_every_question(self) -> None:
        best_on_average = image(0, BASE, (1.0, 1.0, 0.45))  # S = 0.82, but one answer is not above 0.5
        good = image(1, BASE, (0.6, 0.7, 0.8), about=WRONG)  # S = 0.70
        better = image(2, BASE, (0.7, 0.8, 0.75), about=WRONG)  # S = 0.75
        bad = image(2, NEGATIVE, (0.9, 0.9, -0.8))
        assert pair(v2(best_on_average, good, better, bad)).chosen == better

    def test_the_rejected_image_is_the_one_whose_log_probability_is_closest(self) -> None:
        chosen = image(0, BASE, (0.9, 0.9), logprob=-3.0, about=WRONG)
        far_below = image(0, NEGATIVE, (0.9, -0.9), logprob=-4.0)
        close_above = image(1, NEGATIVE, (0.9, -0.6), logprob=-2.75)
        close_below = image(2, NEGATIVE, (-0.9, -0.9), logprob=-3.5)
        made = pair(v2(chosen, far_below, close_above, close_below))
        assert (made.rejected, made.image_gap) == (close_above, -0.25)

    def test_answers_of_exactly_the_threshold_neither_choose_nor_reject(self) -> None:
        chosen = image(0, BASE, (0.9, 0.9), about=WRONG)
        assert v2(chosen, image(0, NEGATIVE, (0.9, -0.5))) == Dropped(NO_REJECTED_CANDIDATE)
        assert v2(image(0, BASE, (0.9, 0.5)), image(1, NEGATIVE, (-0.9, 0.9))) == Dropped(NO_CHOSEN_CANDIDATE)

    def test_the_threshold_is_configurable(self) -> None:
        candidates = [image(0, BASE, (0.3,), about={0: (-0.3,)}), image(1, NEGATIVE, (-0.3,))]
        assert v2(*candidates) == Dropped(NO_CHOSEN_CANDIDATE)
        assert pair(v2(*candidates, v2_answer_threshold=0.2)).rejected == candidates[1]

    def test_the_text_negative_is_the_closest_among_prompts_that_the_chosen_image_contradicts(self) -> None:
        about = {0: (0.9, -0.9), 1: (-0.6,), 2: (0.9, -0.5)}
        chosen = image(0, BASE, (0.9, 0.9), logprob=-3.0, negatives=(-4.0, -3.5, -3.01), about=about)
        made = pair(v2(chosen, image(0, NEGATIVE, (-0.9, 0.9))))
        assert made.negative_variant == 1  # prompt 2 is closer, but nothing in the image clearly contradicts it
        assert made.text_gap == 0.5

    def test_the_text_negative_is_found_where_a_variant_is_missing(self) -> None:
        chosen = image(2, BASE, (0.9,), logprob=-3.0, negatives=(-5.0, -3.5), about={2: (-0.9,)})
        bad = image(0, NEGATIVE, (-0.9,), negatives=(-3.0, -3.0))
        made = pair(select_pair([chosen, bad], (0, 2), SelectionConfig()))
        assert (made.negative_variant, made.text_gap) == (2, 0.5)

    @pytest.mark.parametrize("about", [{}, {0: ()}, {0: (0.9, 0.9), 1: (-0.5,)}])
    def test_a_prompt_that_no_perturbed_prompt_contradicts_is_dropped(
        self, about: dict[int, tuple[float, ...]]
    ) -> None:
        chosen = image(0, BASE, (0.9, 0.9), about=about)
        assert v2(chosen, image(0, NEGATIVE, (-0.9, 0.9))) == Dropped(NO_TEXT_NEGATIVE)

    def test_a_rejected_image_that_scores_higher_is_passed_over(self) -> None:
        chosen = image(0, BASE, (0.6,) * 10, logprob=-3.0, about=WRONG)  # S = 0.60
        higher = image(0, NEGATIVE, (*(1.0,) * 9, -0.6), logprob=-3.0)  # S = 0.84, with one clear no
        lower = image(1, NEGATIVE, (-0.9,) * 10, logprob=-5.0)
        assert pair(v2(chosen, higher, lower)).rejected == lower
        assert v2(chosen, higher) == Dropped(SCORE_NOT_LARGER)

    def test_ties_are_broken_by_variant_then_side_whatever_the_order(self) -> None:
        good = [image(v, side, (0.9,), about=WRONG) for v in (0, 1) for side in (BASE, NEGATIVE)]
        bad = [image(2, side, (-0.9,)) for side in (BASE, NEGATIVE)]
        for candidates in ([*good, *bad], [*bad[::-1], *good[::-1]]):
            made = pair(v2(*candidates, sides="any"))
            assert (made.chosen, made.rejected) == (good[0], bad[0])

    def test_same_noise_takes_the_other_image_of_the_chosen_ones_variant(self) -> None:
        chosen = image(0, BASE, (0.9, 0.9), logprob=-3.0, about=WRONG)
        partner = image(0, NEGATIVE, (0.9, -0.9), logprob=-9.0)
        hardest = image(1, NEGATIVE, (0.9, -0.9), logprob=-3.1)
        assert pair(v2(chosen, partner, hardest)).rejected == hardest
        assert pair(v2(chosen, partner, hardest, v2_rejected="same_noise")).rejected == partner
        good_partner = image(0, NEGATIVE, (0.9, 0.2))
        dropped = v2(chosen, good_partner, hardest, v2_rejected="same_noise")
        assert dropped == Dropped(NO_PAIR_OF_ONE_VARIANT)


class TestV3:
    def test_the_best_image_without_a_rejected_one_of_its_variant_is_passed_over(self) -> None:
        best, its_partner = image(0, BASE, (1.0, 1.0)), image(0, NEGATIVE, (0.9, 0.9))
        good = image(1, BASE, (0.8, 0.8), logprob=-3.0, negatives=(-3.0, -3.25, -3.0))
        partner = image(1, NEGATIVE, (0.8, -0.1), logprob=-4.0)
        made = pair(v3(best, its_partner, good, partner))
        assert (made.chosen, made.rejected) == (good, partner)
        assert (made.negative_variant, made.image_gap, made.text_gap) == (1, 1.0, 0.25)

    def test_the_score_needs_only_reach_the_threshold(self) -> None:
        assert pair(v3(image(0, BASE, (0.6,)), image(0, NEGATIVE, (0.0,))))
        assert v3(image(0, BASE, (0.59,)), image(0, NEGATIVE, (0.0,))) == Dropped(NO_CHOSEN_CANDIDATE)

    def test_a_single_answer_that_is_not_yes_rejects(self) -> None:
        chosen, partner = image(0, BASE, (0.9, 0.9, 0.9)), image(0, NEGATIVE, (1.0, 1.0, 0.0))
        assert pair(v3(chosen, partner)).rejected == partner
        assert v3(chosen, image(0, NEGATIVE, (0.8, 0.8, 0.01))) == Dropped(NO_REJECTED_CANDIDATE)

    def test_without_a_yes_no_image_is_chosen_even_at_a_low_threshold(self) -> None:
        candidates = image(0, BASE, (-0.1,)), image(0, NEGATIVE, (-0.9,))
        assert v3(*candidates, v3_score_threshold=-1.0) == Dropped(NO_CHOSEN_CANDIDATE)

    def test_a_rejected_image_of_another_variant_makes_no_pair(self) -> None:
        assert v3(image(0, BASE, (0.9,)), image(1, NEGATIVE, (-0.9,))) == Dropped(NO_PAIR_OF_ONE_VARIANT)

    def test_an_image_is_not_paired_with_itself(self) -> None:
        both = image(0, BASE, (1.0, 1.0, 1.0, 0.0))  # S = 0.75 with a yes, and one answer that is not yes
        assert v3(both, sides="any") == Dropped(NO_PAIR_OF_ONE_VARIANT)

    def test_a_rejected_image_that_scores_as_high_makes_no_pair(self) -> None:
        equal = image(0, NEGATIVE, (1.0, 1.0, 1.0, 0.0))  # S = 0.75
        assert v3(image(0, BASE, (0.75,) * 4), equal) == Dropped(SCORE_NOT_LARGER)


class TestSides:
    def test_published_v2_takes_the_chosen_image_from_the_base_and_the_rejected_from_a_perturbed_prompt(self) -> None:
        good, better = image(1, BASE, (0.6,), about=WRONG), image(2, NEGATIVE, (0.9,), about=WRONG)
        hard, hardest = image(0, NEGATIVE, (-0.9,), logprob=-4.0), image(2, BASE, (-0.9,), logprob=-3.0)
        published, either = (pair(v2(good, better, hard, hardest, sides=sides)) for sides in ("published", "any"))
        assert (published.chosen, published.rejected) == (good, hard)
        assert (either.chosen, either.rejected) == (better, hardest)
        assert published == pair(v2(good, better, hard, hardest))  # the default

    def test_published_v3_pairs_the_base_with_the_negative_image_of_one_variant(self) -> None:
        failed, lucky = image(2, BASE, (-0.5, 0.5)), image(2, NEGATIVE, (0.9, 0.9))
        good, bad = image(1, BASE, (0.7, 0.7)), image(1, NEGATIVE, (0.7, -0.7))
        published, either = (pair(v3(failed, lucky, good, bad, sides=sides)) for sides in ("published", "any"))
        assert (published.chosen, published.rejected, published.negative_variant) == (good, bad, 1)
        assert (either.chosen, either.rejected, either.negative_variant) == (lucky, failed, 2)

    @pytest.mark.parametrize("select", [v2, v3])
    def test_an_image_of_the_wrong_side_is_no_candidate(self, select: Any) -> None:
        good, bad = image(0, NEGATIVE, (0.9,), about=WRONG), image(0, BASE, (-0.9,))
        assert pair(select(good, bad, sides="any")).chosen == good
        assert select(good, bad) == Dropped(NO_CHOSEN_CANDIDATE)
        assert select(image(1, BASE, (0.9,)), bad) == Dropped(NO_REJECTED_CANDIDATE)

    def test_published_same_noise_needs_a_bad_negative_image_of_the_chosen_variant(self) -> None:
        chosen, other = image(0, BASE, (0.9,), about=WRONG), image(1, NEGATIVE, (-0.9,))
        assert v2(chosen, other, v2_rejected="same_noise") == Dropped(NO_PAIR_OF_ONE_VARIANT)

    def test_only_images_of_a_side_that_is_not_needed_were_asked(self) -> None:
        silent, asked = image(0, BASE, ()), image(0, NEGATIVE, (-0.9,))
        assert v2(silent, asked) == Dropped(NO_CHOSEN_CANDIDATE)


class TestAblations:
    def test_best_of_n_pairs_best_and_worst_of_the_prompts_own_images(self) -> None:
        low, middle, high = (image(v, BASE, (s, s)) for v, s in ((0, -0.2), (1, 0.1), (2, 0.4)))
        better, worse = image(0, NEGATIVE, (0.9, 0.9)), image(1, NEGATIVE, (-0.9, -0.9))
        made = pair(best_of_n(better, middle, low, worse, high))
        assert (made.chosen, made.rejected, made.negative_variant) == (high, low, 2)

    def test_best_of_n_needs_two_images_that_differ(self) -> None:
        alone = image(0, BASE, (0.9,)), image(0, NEGATIVE, (-0.9,))
        assert best_of_n(*alone) == Dropped(NO_REJECTED_CANDIDATE)
        assert best_of_n(image(0, BASE, (0.5,)), image(1, BASE, (0.5,))) == Dropped(SCORE_NOT_LARGER)

    def test_unfiltered_pairs_the_two_images_of_the_drawn_variant_whatever_they_show(self) -> None:
        images = {(v, side): image(v, side, ()) for v in VARIANTS for side in (BASE, NEGATIVE)}
        del images[1, NEGATIVE]
        for draw, variant in enumerate((0, 2, 0)):
            made = pair(unfiltered(*images.values(), draw=draw))
            assert (made.chosen, made.rejected) == (images[variant, BASE], images[variant, NEGATIVE])
            assert made.negative_variant == variant

    def test_unfiltered_needs_both_images_of_a_variant(self) -> None:
        assert unfiltered(image(0, BASE, (0.9,)), image(1, NEGATIVE, (-0.9,))) == Dropped(NO_COMPLETE_VARIANT)


@pytest.mark.parametrize("select", [v2, v3, best_of_n])
def test_a_prompt_without_images_or_without_questions_is_dropped(select: Any) -> None:
    assert select() == Dropped(NO_IMAGES)
    assert select(image(0, BASE, ()), image(0, NEGATIVE, ())) == Dropped(NO_QUESTIONS)


def test_an_image_that_was_asked_nothing_is_never_chosen() -> None:
    silent, bad = image(0, BASE, (), about=WRONG), image(1, NEGATIVE, (-0.9,))
    assert v2(silent, bad) == v3(silent, bad) == Dropped(NO_CHOSEN_CANDIDATE)


@pytest.mark.parametrize("select", [v2, v3, best_of_n, unfiltered])
@pytest.mark.parametrize(
    "broken",
    [
        replace(image(0, BASE, (0.9,)), score=math.nan),
        replace(image(0, BASE, (0.9,)), logprob_base=-math.inf),
        replace(image(0, NEGATIVE, (0.9,)), logprob_negatives=(-3.0, math.nan, -3.0)),
        replace(image(0, NEGATIVE, (0.9,)), negative_answers={0: (math.nan,)}),
        image(0, BASE, (0.9, math.inf)),
    ],
)
def test_a_number_that_is_not_finite_drops_the_prompt(broken: Candidate, select: Any) -> None:
    assert select(broken, image(1, BASE, (0.9,)), image(1, NEGATIVE, (-0.9,))) == Dropped(NOT_FINITE)


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
        v2(*candidates)
