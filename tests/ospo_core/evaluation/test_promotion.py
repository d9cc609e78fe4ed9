"""The gate promotes what is surely better, refuses with the reason, and never compares unlike things."""

from __future__ import annotations

from typing import Any

import pytest

from ospo_core.config.sections import EvaluationConfig, PromotionConfig
from ospo_core.errors import StageError
from ospo_core.evaluation.promotion import decide, evaluation_extra
from ospo_core.schema import CHILD, PARENT
from tests.support.evaluation_rows import evaluation_row, evaluation_rows

GATE = PromotionConfig()


def before_after(before: list[bool], after: list[bool], category: str = "attribute") -> tuple[list[Any], list[Any]]:
    return evaluation_rows(PARENT, before, category), evaluation_rows(CHILD, after, category)


def test_a_clear_gain_is_promoted_and_the_figures_are_right() -> None:
    parents, children = before_after([False] * 60 + [True] * 40, [True] * 80 + [False] * 20)
    decision = decide(parents, children, GATE, resamples=500)
    assert decision.promote and decision.metric == "oracle"
    assert decision.overall.parent == pytest.approx(0.4)
    assert decision.overall.child == pytest.approx(0.8)
    assert decision.overall.difference == pytest.approx(0.4)
    assert 0.2 < decision.overall.difference_low < 0.4 < decision.overall.difference_high < 0.6
    assert decision.reason.startswith("accuracy rose from 40.0 % to 80.0 %, by 40.0 points")


def test_the_same_model_twice_is_refused() -> None:
    decision = decide(*before_after([True, False] * 20, [True, False] * 20), GATE, resamples=200)
    assert not decision.promote
    assert decision.reason.startswith("accuracy stayed at 50.0 %")


def test_a_gain_below_the_margin_is_refused() -> None:
    parents, children = before_after([False] * 50 + [True] * 50, [True] * 90 + [False] * 10)
    assert decide(parents, children, PromotionConfig(margin=0.1), resamples=500).promote
    refused = decide(parents, children, PromotionConfig(margin=0.5), resamples=500)
    assert not refused.promote and "margin of 50.0 points" in refused.reason


def test_a_category_that_falls_too_far_is_named() -> None:
    parents, children = before_after([False] * 90 + [True] * 10, [True] * 100)
    fallen = before_after([True] * 10, [True] * 8 + [False] * 2, "layout")
    strict, lenient = PromotionConfig(max_category_drop=0.1), PromotionConfig(max_category_drop=0.2)
    refused = decide(parents + fallen[0], children + fallen[1], strict, resamples=300)
    assert not refused.promote and "fell in layout by 20.0 points" in refused.reason
    assert decide(parents + fallen[0], children + fallen[1], lenient, resamples=300).promote


def test_groups_are_by_category_and_by_sub_category() -> None:
    parents, children = before_after([True], [True])
    layout = before_after([False], [True], "layout")
    decision = decide(parents + layout[0], children + layout[1], GATE, resamples=50)
    assert [(group.name, group.difference) for group in decision.categories] == [("attribute", 0.0), ("layout", 1.0)]
    assert [group.name for group in decision.sub_categories] == ["color_1"]


def test_samples_of_one_prompt_count_as_one_observation() -> None:
    def rows(model: str, verdict: bool, samples: int) -> list[dict[str, Any]]:
        return [evaluation_row(f"{i}", model, verdict, sample=s) for i in range(5) for s in range(samples)]

    once = decide(rows(PARENT, False, 1), rows(CHILD, True, 1), GATE, resamples=50).overall
    often = decide(rows(PARENT, False, 8), rows(CHILD, True, 8), GATE, resamples=50)
    assert often.overall == once and often.images == 40


def test_the_order_of_the_rows_changes_nothing() -> None:
    parents, children = before_after([False, True, True, False] * 9, [True, True, False, False] * 9)
    assert decide(parents[::-1], children, GATE, 100) == decide(parents, children[::-1], GATE, 100)


def test_auto_uses_self_judgement_where_the_oracle_is_silent() -> None:
    parents = [evaluation_row(str(i), PARENT, None, vqa_correct=False) for i in range(9)]
    children = [evaluation_row(str(i), CHILD, None, vqa_correct=True) for i in range(9)]
    decision = decide(parents, children, GATE, 50)
    assert (decision.metric, decision.overall.difference) == ("vqa", 1.0)
    with pytest.raises(StageError, match=r"promotion\.metric"):
        decide(parents, children, PromotionConfig(metric="oracle"), 50)


def test_unpaired_evaluations_are_refused() -> None:
    parents, children = before_after([True, False], [True, False])
    with pytest.raises(StageError, match="not evaluated on the same prompts"):
        decide(parents, children[:1], GATE)
    with pytest.raises(StageError, match="0 and 0 pictures"):
        decide([], [], GATE)
    with pytest.raises(StageError, match="1 in common"):
        decide(parents, [children[0], {**children[1], "seed": 5}], GATE)


def test_the_manifest_extra_is_plain_json_with_the_judge_per_model() -> None:
    import json

    parents, children = before_after([True, False], [True, True])
    extra = evaluation_extra(parents, children, EvaluationConfig(bootstrap=50), GATE)
    assert json.loads(json.dumps(extra)) == extra
    assert set(extra) == {"decision", "judge"} and set(extra["judge"]) == {PARENT, CHILD}
    silent = [{**row, "oracle_correct": None} for row in parents]
    assert evaluation_extra(silent, silent, EvaluationConfig(bootstrap=50), GATE)["judge"] == {}
