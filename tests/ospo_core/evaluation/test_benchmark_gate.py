"""A benchmark decides: paired scores of parent and child, by the same rule as every other metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from ospo_core.config.sections import EvaluationConfig, PromotionConfig
from ospo_core.errors import StageError
from ospo_core.evaluation.benchmark_gate import decide_by_benchmark, gated_extra
from ospo_core.evaluation.benchmarks.protocol import DPG, GENEVAL, OWN, T2I_COMPBENCH
from ospo_core.evaluation.benchmarks.summary import difference
from ospo_core.evaluation.promotion import Decision, evaluation_extra
from tests.support.evaluation_rows import evaluation_rows

Row = dict[str, Any]


def rows(scores: Mapping[str, Sequence[float | None]], parts: Sequence[str] = ()) -> list[Row]:
    """Rows of table `benchmark`: category to one score per prompt; each of `parts` has the score of the row."""
    return [
        {
            "item_id": f"{category}-{number}",
            "category": category,
            "prompt": f"{category} {number}",
            "sample": 0,
            "score": score,
            "parts": [{"name": part, "value": score} for part in parts],
            "reason": "",
        }
        for category, values in scores.items()
        for number, score in enumerate(values)
    ]


def decided(benchmark: str, before: list[Row], after: list[Row], **promotion: float) -> Decision:
    config = PromotionConfig.model_validate({"metric": "benchmark", **promotion})
    return decide_by_benchmark("mine", benchmark, before, after, config, resamples=200)


@pytest.mark.parametrize(
    ("after", "promotion", "expected", "words"),
    [
        ({"a": [1.0] * 20, "b": [1.0] * 20}, {}, True, "the score on mine rose from 25.0 % to 100.0 %, by 75.0 points"),
        ({"a": [1.0] * 20, "b": [1.0] * 20}, {"margin": 0.8}, False, "does not lie above the margin of 80.0 points"),
        ({"a": [0.0] * 20, "b": [0.5] * 20}, {}, False, "the score on mine stayed at 25.0 %"),
        ({"a": [1.0] * 20, "b": [0.3] * 20}, {}, False, "the score on mine fell in b by 20.0 points; at most 10.0"),
        ({"a": [1.0] * 20, "b": [0.3] * 20}, {"max_category_drop": 0.25}, True, "95 % interval"),
    ],
)
def test_the_rule_is_that_of_other_metrics(
    after: dict[str, list[float]], promotion: dict[str, float], expected: bool, words: str
) -> None:
    found = decided(OWN, rows({"a": [0.0] * 20, "b": [0.5] * 20}), rows(after), **promotion)
    assert found.promote is expected and words in found.reason
    assert (found.metric, found.judge, found.sub_categories) == ("benchmark", "the benchmark mine", ())
    assert [group.name for group in found.categories] == ["a", "b"] and found.overall.name == "all"


@pytest.mark.parametrize(
    ("benchmark", "whole"),
    [(T2I_COMPBENCH, 0.5), (GENEVAL, 0.5), (OWN, 0.2), (DPG, 0.2)],
)
def test_the_whole_is_that_of_the_benchmark(benchmark: str, whole: float) -> None:
    """Category a has 8 prompts, b has 2; the mean over categories and that over prompts differ."""
    before = rows({"a": [0.0] * 8, "b": [0.0] * 2}, ["entity"])
    after = rows({"a": [0.0] * 8, "b": [1.0] * 2}, ["entity"])
    found = decided(benchmark, before, after)
    assert found.overall.child == pytest.approx(whole) and found.overall.prompts == 10
    assert {group.name for group in found.categories} == ({"entity"} if benchmark == DPG else {"a", "b"})
    shown = difference(benchmark, before, after, resamples=200)
    for group in found.categories:
        assert group.difference == shown[group.name]["difference"] == pytest.approx(group.child - group.parent)
        assert (group.difference_low, group.difference_high) == (shown[group.name]["low"], shown[group.name]["high"])


def test_scores_outside_of_shares_have_intervals_too() -> None:
    found = decided(T2I_COMPBENCH, rows({"complex": [-0.1, 0.2]}), rows({"complex": [-0.05, 0.3]}))
    assert found.overall.parent == pytest.approx(0.05) and found.overall.parent_low < 0.05


def test_only_prompts_with_a_score_on_both_sides_count() -> None:
    before, after = rows({"a": [1.0, None, 1.0]}), rows({"a": [None, 0.0, 1.0], "b": [0.0]})
    found = decided(OWN, before, after)
    assert (found.overall.prompts, found.images, found.overall.difference) == (1, 1, 0.0)
    with pytest.raises(StageError, match=r"benchmark\.name: no prompt has a score of both parent and child"):
        decided(OWN, rows({"a": [None]}), rows({"a": [1.0]}))


def test_the_figures_of_held_out_prompts_stay_beside_it() -> None:
    sides = [evaluation_rows(label, [right] * 6) for label, right in (("parent", False), ("child", True))]
    promotion = PromotionConfig(metric="benchmark")
    extra = evaluation_extra(*sides, EvaluationConfig(bootstrap=50), promotion)
    decision = decided(OWN, rows({"a": [1.0] * 5}), rows({"a": [0.0] * 5}))
    found = gated_extra(extra, decision, {"name": "mine"})
    assert not found["decision"]["promote"] and found["held_out"]["overall"]["child"] == 1.0
    assert found["held_out"]["metric"] == "oracle" and found["judge"] == extra["judge"]
    assert "promote" not in found["held_out"] and found["gate"] == {"name": "mine"}
