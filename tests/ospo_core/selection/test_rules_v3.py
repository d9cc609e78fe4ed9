"""Rule v3 and the unfiltered ablation, worked by hand."""

from __future__ import annotations

from collections.abc import Sequence

from ospo_core.config.sections import SelectionConfig
from ospo_core.selection import (
    NO_CHOSEN_CANDIDATE,
    NO_COMPLETE_VARIANT,
    NO_PAIR_OF_ONE_VARIANT,
    NO_QUESTIONS,
    NO_REJECTED_CANDIDATE,
    SCORE_NOT_LARGER,
)
from tests.ospo_core.selection.candidates import BASE, NEGATIVE, image
from tests.ospo_core.selection.one_prompt import select_pair
from tests.support.simple_rules import Candidate, Dropped, Selected

V3 = SelectionConfig(rule="v3")
UNFILTERED = SelectionConfig(filtering=False)
VARIANTS = (0, 1, 2)


def select(candidates: Sequence[Candidate], config: SelectionConfig = V3, draw: int = 0) -> Selected | Dropped:
    return select_pair(candidates, VARIANTS, config, draw)


def selected(candidates: Sequence[Candidate], config: SelectionConfig = V3, draw: int = 0) -> Selected:
    outcome = select(candidates, config, draw)
    assert isinstance(outcome, Selected), outcome
    return outcome


def test_the_best_image_without_a_rejected_one_of_its_variant_is_passed_over() -> None:
    best = image(0, BASE, (1.0, 1.0))
    its_partner = image(0, NEGATIVE, (0.9, 0.9))
    good = image(1, BASE, (0.8, 0.8), logprob=-3.0, negatives=(-3.0, -3.25, -3.0))
    partner = image(1, NEGATIVE, (0.8, -0.1), logprob=-4.0)
    pair = selected([best, its_partner, good, partner])
    assert (pair.chosen, pair.rejected) == (good, partner)
    assert (pair.negative_variant, pair.image_gap, pair.text_gap) == (1, 1.0, 0.25)


def test_the_score_needs_only_reach_the_threshold() -> None:
    assert isinstance(select([image(0, BASE, (0.6,)), image(0, NEGATIVE, (0.0,))]), Selected)
    assert select([image(0, BASE, (0.59,)), image(0, NEGATIVE, (0.0,))]) == Dropped(NO_CHOSEN_CANDIDATE)


def test_a_single_answer_that_is_not_yes_rejects() -> None:
    chosen, partner = image(0, BASE, (0.9, 0.9, 0.9)), image(0, NEGATIVE, (1.0, 1.0, 0.0))
    assert selected([chosen, partner]).rejected == partner
    assert select([chosen, image(0, NEGATIVE, (0.8, 0.8, 0.01))]) == Dropped(NO_REJECTED_CANDIDATE)


def test_without_a_yes_no_image_is_chosen_even_at_a_low_threshold() -> None:
    lenient = SelectionConfig(rule="v3", v3_score_threshold=-1.0)
    assert select([image(0, BASE, (-0.1,)), image(0, NEGATIVE, (-0.9,))], lenient) == Dropped(NO_CHOSEN_CANDIDATE)


def test_a_rejected_image_of_another_variant_makes_no_pair() -> None:
    candidates = [image(0, BASE, (0.9,)), image(1, NEGATIVE, (-0.9,))]
    assert select(candidates) == Dropped(NO_PAIR_OF_ONE_VARIANT)


def test_an_image_is_not_paired_with_itself() -> None:
    both = image(0, BASE, (1.0, 1.0, 1.0, 0.0))  # S = 0.75 with a yes, and one answer that is not yes
    assert select([both]) == Dropped(NO_PAIR_OF_ONE_VARIANT)


def test_the_image_of_the_perturbed_prompt_may_be_the_better_one() -> None:
    failed, lucky = image(2, BASE, (-0.5, 0.5)), image(2, NEGATIVE, (0.9, 0.9))
    pair = selected([failed, lucky])
    assert (pair.chosen, pair.rejected, pair.negative_variant) == (lucky, failed, 2)


def test_a_rejected_image_that_scores_as_high_makes_no_pair() -> None:
    equal = image(0, NEGATIVE, (1.0, 1.0, 1.0, 0.0))  # S = 0.75
    assert select([image(0, BASE, (0.75,) * 4), equal]) == Dropped(SCORE_NOT_LARGER)


def test_a_prompt_without_questions_is_dropped() -> None:
    assert select([image(0, BASE, ()), image(0, NEGATIVE, ())]) == Dropped(NO_QUESTIONS)


def test_unfiltered_pairs_the_two_images_of_the_drawn_variant_whatever_they_show() -> None:
    images = {(v, side): image(v, side, ()) for v in VARIANTS for side in (BASE, NEGATIVE)}
    del images[1, NEGATIVE]
    for draw, variant in enumerate((0, 2, 0)):
        pair = selected(list(images.values()), UNFILTERED, draw)
        assert pair.chosen == images[variant, BASE]
        assert pair.rejected == images[variant, NEGATIVE]
        assert pair.negative_variant == variant


def test_unfiltered_needs_both_images_of_a_variant() -> None:
    assert select([image(0, BASE, (0.9,)), image(1, NEGATIVE, (-0.9,))], UNFILTERED) == Dropped(NO_COMPLETE_VARIANT)
