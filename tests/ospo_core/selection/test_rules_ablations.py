"""The variants of the rules that experiments compare, worked by hand."""

from __future__ import annotations

from ospo_core.config.sections import SelectionConfig
from ospo_core.selection import NO_PAIR_OF_ONE_VARIANT, NO_REJECTED_CANDIDATE, SCORE_NOT_LARGER
from tests.ospo_core.selection.candidates import BASE, NEGATIVE, image
from tests.ospo_core.selection.one_prompt import select_pair
from tests.support.simple_rules import Dropped, Selected

BEST_OF_N = SelectionConfig(rule="best_of_n")
SAME_NOISE = SelectionConfig(v2_rejected="same_noise")
VARIANTS = (0, 1, 2)
WRONG = {0: (0.9, -0.9)}


def test_best_of_n_pairs_best_and_worst_of_the_prompts_own_images() -> None:
    low, middle, high = (image(v, BASE, (s, s)) for v, s in ((0, -0.2), (1, 0.1), (2, 0.4)))
    better, worse = image(0, NEGATIVE, (0.9, 0.9)), image(1, NEGATIVE, (-0.9, -0.9))
    outcome = select_pair([better, middle, low, worse, high], VARIANTS, BEST_OF_N)
    assert isinstance(outcome, Selected)
    assert (outcome.chosen, outcome.rejected, outcome.negative_variant) == (high, low, 2)


def test_best_of_n_needs_two_images_that_differ() -> None:
    alone = [image(0, BASE, (0.9,)), image(0, NEGATIVE, (-0.9,))]
    assert select_pair(alone, VARIANTS, BEST_OF_N) == Dropped(NO_REJECTED_CANDIDATE)
    equal = [image(0, BASE, (0.5,)), image(1, BASE, (0.5,))]
    assert select_pair(equal, VARIANTS, BEST_OF_N) == Dropped(SCORE_NOT_LARGER)


def test_same_noise_takes_the_other_image_of_the_chosen_ones_variant() -> None:
    chosen = image(0, BASE, (0.9, 0.9), logprob=-3.0, about=WRONG)
    partner = image(0, NEGATIVE, (0.9, -0.9), logprob=-9.0)
    hardest = image(1, NEGATIVE, (0.9, -0.9), logprob=-3.1)
    for config, rejected in ((SAME_NOISE, partner), (SelectionConfig(), hardest)):
        outcome = select_pair([chosen, partner, hardest], VARIANTS, config)
        assert isinstance(outcome, Selected) and outcome.rejected == rejected


def test_same_noise_drops_a_prompt_whose_chosen_image_has_no_bad_partner() -> None:
    chosen, partner = image(0, BASE, (0.9, 0.9), about=WRONG), image(0, NEGATIVE, (0.9, 0.2))
    other = image(1, NEGATIVE, (0.9, -0.9))
    assert select_pair([chosen, partner, other], VARIANTS, SAME_NOISE) == Dropped(NO_PAIR_OF_ONE_VARIANT)
