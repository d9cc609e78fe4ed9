"""The arithmetic of scores."""

from __future__ import annotations

import pytest

from ospo_core.selection.scoring import answer_score, image_score, is_yes


def test_answer_score_is_yes_minus_no() -> None:
    assert answer_score(0.75, 0.25) == 0.5
    assert answer_score(0.0, 1.0) == -1.0


def test_image_score_is_the_mean_of_its_answers() -> None:
    assert image_score([1.0, 0.5, -0.75]) == 0.25


def test_the_order_of_the_questions_does_not_change_the_score() -> None:
    answers = [0.1, 0.2, 0.3, -0.7, 1e-9]
    assert image_score(answers) == image_score(answers[::-1])


def test_an_image_that_was_asked_nothing_scores_zero() -> None:
    assert image_score([]) == 0.0


@pytest.mark.parametrize(("answer", "expected"), [(0.01, True), (0.0, False), (-0.01, False)])
def test_a_tie_is_not_a_yes(answer: float, expected: bool) -> None:
    assert is_yes(answer) is expected
