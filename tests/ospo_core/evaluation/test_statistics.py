"""Intervals: hand-worked Wilson ends, and what a paired bootstrap must do."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ospo_core.evaluation.statistics import paired_bootstrap, wilson_interval


def test_wilson_agrees_with_the_worked_example_of_eight_in_ten() -> None:
    low, high = wilson_interval(0.8, 10)
    assert (round(low, 4), round(high, 4)) == (0.4902, 0.9433)


@pytest.mark.parametrize(("successes", "count"), [(37, 120), (1, 3), (0, 10), (500, 500)])
def test_wilson_bounds_are_where_the_score_test_just_rejects(successes: int, count: int) -> None:
    """Both bounds `p` solve `|share - p| = z sqrt(p (1 - p) / n)`, which defines the interval (Wilson 1927)."""
    z, share = NormalDist().inv_cdf(0.975), successes / count
    for bound in wilson_interval(share, count):
        assert abs(share - bound) == pytest.approx(z * math.sqrt(bound * (1 - bound) / count), abs=1e-9)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_contains_the_share_and_stays_in_the_unit_interval(case: tuple[int, int]) -> None:
    successes, count = case
    low, high = wilson_interval(successes / count, count)
    assert 0.0 <= low <= successes / count <= high <= 1.0
    assert high - low < 1.0


def test_wilson_of_nothing_says_nothing() -> None:
    assert wilson_interval(0.0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("share", "count"), [(-0.1, 5), (1.1, 5), (0.5, -1)])
def test_wilson_refuses_what_is_no_share(share: float, count: float) -> None:
    with pytest.raises(ValueError, match="share"):
        wilson_interval(share, count)


def test_bootstrap_of_a_constant_gain_is_that_gain() -> None:
    assert paired_bootstrap([0.0] * 20, [1.0] * 20, 100, 1) == (1.0, 1.0)


def test_bootstrap_is_the_same_for_the_same_seed_and_differs_for_another() -> None:
    generator = np.random.default_rng(0)
    before, after = generator.random(50).tolist(), generator.random(50).tolist()
    assert paired_bootstrap(before, after, 300, 7) == paired_bootstrap(before, after, 300, 7)
    assert paired_bootstrap(before, after, 300, 7) != paired_bootstrap(before, after, 300, 8)


def test_bootstrap_uses_the_pairing() -> None:
    """Every prompt gains 0.1: unpaired noise between prompts must not widen the interval."""
    before = np.linspace(0.0, 0.9, 40)
    low, high = paired_bootstrap(before.tolist(), (before + 0.1).tolist(), 500, 3)
    assert low == pytest.approx(0.1) == high


def test_bootstrap_width_is_about_that_of_the_normal_theory() -> None:
    gains = np.random.default_rng(5).choice([-1.0, 0.0, 1.0], size=400, p=[0.1, 0.6, 0.3])
    low, high = paired_bootstrap(np.zeros(400).tolist(), gains.tolist(), 4000, 0)
    assert high - low == pytest.approx(2 * 1.96 * gains.std() / 20, rel=0.08)


@pytest.mark.parametrize(("before", "after", "resamples"), [([], [], 10), ([0.0], [], 10), ([0.0], [1.0], 0)])
def test_bootstrap_refuses_what_it_cannot_draw_from(before: list[float], after: list[float], resamples: int) -> None:
    with pytest.raises(ValueError, match="non-empty"):
        paired_bootstrap(before, after, resamples, 0)
