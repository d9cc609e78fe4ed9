"""The learning rate, step by step."""

from __future__ import annotations

import pytest

from ospo_core.config.sections import TrainingConfig
from ospo_core.training.loop import learning_rate


def test_constant_stays() -> None:
    config = TrainingConfig(steps=10, learning_rate=1e-5)
    assert {learning_rate(step, config) for step in range(10)} == {1e-5}


def test_warm_up_rises_in_equal_parts_to_the_peak() -> None:
    config = TrainingConfig(steps=20, learning_rate=1.0, warmup_fraction=0.2)
    assert [learning_rate(step, config) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_cosine_starts_at_the_peak_is_halfway_in_the_middle_and_ends_at_the_floor() -> None:
    config = TrainingConfig(steps=101, learning_rate=1.0, schedule="cosine", min_learning_rate=0.2)
    assert [learning_rate(step, config) for step in (0, 50, 100)] == pytest.approx([1.0, 0.6, 0.2])


def test_paper_v3_rises_then_falls_to_1e_minus_7() -> None:
    config = TrainingConfig(steps=1000, learning_rate=1e-5, schedule="cosine", warmup_fraction=0.05)
    rates = [learning_rate(step, config) for step in range(1000)]
    assert rates.index(max(rates)) in (49, 50)
    assert rates[50:] == sorted(rates[50:], reverse=True)
    assert rates[-1] == pytest.approx(1e-7)


def test_a_run_of_a_single_step_has_a_rate() -> None:
    assert learning_rate(0, TrainingConfig(steps=1, schedule="cosine")) == 1e-5
