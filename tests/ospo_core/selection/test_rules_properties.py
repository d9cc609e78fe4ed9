"""What holds for every set of candidates."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from ospo_core.config.sections import SelectionConfig
from ospo_core.selection.rules import DROP_REASONS
from tests.support.candidates import BASE, NEGATIVE, image, select_pair
from tests.support.simple_rules import Candidate, Dropped, Selected

V2, V3 = ([SelectionConfig(rule=rule, sides=sides) for sides in ("published", "any")] for rule in ("v2", "v3"))
UNFILTERED = SelectionConfig(filtering=False)
VARIANTS = (0, 1, 2)
ALL = {(variant, side) for variant in VARIANTS for side in (BASE, NEGATIVE)}
SOME = settings(max_examples=150, deadline=None, derandomize=True)

scores = st.one_of(st.sampled_from([-1.0, -0.6, -0.5, 0.0, 0.5, 0.6, 0.9, 1.0]), st.floats(-1, 1))
moods = st.sampled_from([st.floats(0.55, 1), st.floats(-1, -0.55), scores])
"""Answers of any kind, or all clearly yes, or all clearly no, so that pairs are not rare."""
logprobs = st.floats(-12, 0)
configs = st.sampled_from([*V2, *V3, UNFILTERED])


@st.composite
def items(draw: st.DrawFn) -> list[Candidate]:
    """Return the candidates of one prompt: all were asked the same questions, some images may be missing."""
    questions = draw(st.integers(1, 4))
    places = draw(
        st.just(ALL) | st.sets(st.tuples(st.sampled_from(VARIANTS), st.sampled_from((BASE, NEGATIVE))), max_size=6)
    )
    return [
        image(
            variant,
            side,
            draw(st.lists(draw(moods), min_size=questions, max_size=questions)),
            draw(logprobs),
            draw(st.tuples(logprobs, logprobs, logprobs)),
            {v: draw(st.lists(draw(moods), max_size=2)) for v in VARIANTS},
        )
        for variant, side in sorted(places)
    ]


@SOME
@given(items(), configs)
def test_an_outcome_is_a_pair_of_two_images_or_a_named_reason(
    candidates: list[Candidate], config: SelectionConfig
) -> None:
    outcome = select_pair(candidates, VARIANTS, config)
    if isinstance(outcome, Dropped):
        assert outcome.reason in DROP_REASONS
        return
    assert outcome.chosen in candidates and outcome.rejected in candidates
    assert outcome.chosen is not outcome.rejected
    assert outcome.negative_variant in VARIANTS
    assert outcome.image_gap == outcome.chosen.logprob_base - outcome.rejected.logprob_base
    assert outcome.text_gap == outcome.chosen.logprob_base - outcome.chosen.logprob_negatives[outcome.negative_variant]


@SOME
@given(items(), configs, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_changes_nothing(
    candidates: list[Candidate], config: SelectionConfig, shuffler: random.Random
) -> None:
    shuffled = list(candidates)
    shuffler.shuffle(shuffled)
    assert select_pair(shuffled, VARIANTS, config) == select_pair(candidates, VARIANTS, config)


@SOME
@given(items(), st.sampled_from(V2))
def test_v2_is_what_the_method_says(candidates: list[Candidate], config: SelectionConfig) -> None:
    outcome = select_pair(candidates, VARIANTS, config)
    good = [c for c in candidates if min(c.answers) > 0.5 and (config.sides == "any" or c.side is BASE)]
    bad = [c for c in candidates if min(c.answers) < -0.5 and (config.sides == "any" or c.side is NEGATIVE)]
    if isinstance(outcome, Dropped):
        best = max((c.score for c in good), default=None)
        tops = [c for c in good if c.score == best]
        partners = [c for c in bad if best is not None and c.score < best]
        assert not partners or not all(any(min(a, default=0) < -0.5 for a in c.negative_answers.values()) for c in tops)
        return
    chosen, rejected = outcome.chosen, outcome.rejected
    assert chosen.score == max(c.score for c in good)
    assert rejected in bad and chosen.score > rejected.score
    assert abs(outcome.image_gap) == min(
        abs(chosen.logprob_base - c.logprob_base) for c in bad if c.score < chosen.score
    )
    wrong = [v for v, answers in chosen.negative_answers.items() if min(answers, default=0) < -0.5]
    assert outcome.negative_variant in wrong
    assert abs(outcome.text_gap) == min(abs(chosen.logprob_base - chosen.logprob_negatives[v]) for v in wrong)


@SOME
@given(items(), st.sampled_from(V3))
def test_v3_is_what_the_method_says(candidates: list[Candidate], config: SelectionConfig) -> None:
    outcome = select_pair(candidates, VARIANTS, config)
    sides = {(BASE, NEGATIVE)} | ({(NEGATIVE, BASE)} if config.sides == "any" else set())
    possible = [
        (good, bad)
        for good in candidates
        for bad in candidates
        if good.variant == bad.variant
        and (good.side, bad.side) in sides
        and good.score >= 0.6
        and max(good.answers) > 0
        and min(bad.answers) <= 0
        and good.score > bad.score
    ]
    assert isinstance(outcome, Selected) == bool(possible)
    if isinstance(outcome, Selected):
        assert (outcome.chosen, outcome.rejected) in possible
        assert outcome.chosen.score == max(good.score for good, _ in possible)
        assert outcome.negative_variant == outcome.rejected.variant


@SOME
@given(items(), st.sampled_from([*V2, *V3]))
def test_a_clearly_worse_image_never_replaces_the_chosen_one(
    candidates: list[Candidate], config: SelectionConfig
) -> None:
    outcome = select_pair(candidates, VARIANTS, config)
    taken = {(candidate.variant, candidate.side) for candidate in candidates}
    if isinstance(outcome, Dropped) or (0, NEGATIVE) in taken:
        return
    worst = image(0, NEGATIVE, (-1.0,) * len(outcome.chosen.answers), logprob=-99.0)
    again = select_pair([*candidates, worst], VARIANTS, config)
    assert isinstance(again, Selected)
    assert again.chosen.score >= outcome.chosen.score
    assert config.rule == "v3" or again.chosen == outcome.chosen
