"""Judge quality: a confusion table by hand, and the area under the curve by counting pairs."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ospo_core.evaluation.judges import area_under_curve, judge_quality
from tests.support.evaluation_rows import evaluation_row


def test_confusion_table_worked_by_hand() -> None:
    cases = [(True, True)] * 3 + [(True, False)] * 1 + [(False, True)] * 2 + [(False, False)] * 4
    rows = [
        evaluation_row(str(i), "parent", truth, vqa_correct=claim, vqa_score=0.9 if claim else -0.9)
        for i, (claim, truth) in enumerate(cases)
    ]
    quality = judge_quality(rows)
    assert quality is not None
    assert (quality.true_positives, quality.false_positives) == (3, 1)
    assert (quality.false_negatives, quality.true_negatives) == (2, 4)
    assert (quality.accuracy, quality.precision, quality.recall) == (0.7, 0.75, 0.6)
    assert quality.auc == pytest.approx((3 * 4 + 0.5 * (3 * 1 + 2 * 4)) / 25)


def test_without_an_oracle_there_is_no_quality() -> None:
    assert judge_quality([evaluation_row("a", "parent", None)]) is None
    assert judge_quality([]) is None


def test_undefined_figures_are_none() -> None:
    quality = judge_quality([evaluation_row("a", "parent", False, vqa_correct=False)])
    assert quality is not None
    assert (quality.accuracy, quality.precision, quality.recall, quality.auc) == (1.0, None, None, None)


@given(st.lists(st.tuples(st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]), st.booleans()), min_size=1, max_size=30))
def test_area_is_the_share_of_pairs_in_the_right_order(cases: list[tuple[float, bool]]) -> None:
    scores, truths = [score for score, _ in cases], [truth for _, truth in cases]
    pairs = list(product([s for s, t in cases if t], [s for s, t in cases if not t]))
    expected = sum((p > n) + 0.5 * (p == n) for p, n in pairs) / len(pairs) if pairs else None
    assert area_under_curve(scores, truths) == (None if expected is None else pytest.approx(expected))
