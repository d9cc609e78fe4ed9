"""Means by category with intervals, paired differences, and who is said to have scored."""

from __future__ import annotations

from typing import Any

import pytest

from ospo_core.errors import ConfigError
from ospo_core.evaluation.benchmarks.summary import difference, scored_by, stratified_interval, summarise
from ospo_core.evaluation.statistics import wilson_interval


def row(item: str, category: str, score: float | None, **parts: float) -> dict[str, Any]:
    listed = [{"name": name, "value": value} for name, value in parts.items()]
    return {"item_id": item, "category": category, "score": score, "parts": listed}


def test_geneval_is_the_mean_over_its_categories() -> None:
    rows = [row("a", "colors", 1.0), row("a", "colors", 0.0), row("b", "colors", 1.0), row("c", "counting", 0.0)]
    groups = summarise("geneval", rows)["groups"]
    assert groups["colors"]["score"] == 0.75 and groups["colors"]["prompts"] == 2
    assert (groups["colors"]["low"], groups["colors"]["high"]) == wilson_interval(0.75, 2)
    assert groups["all"]["score"] == pytest.approx(0.375) and groups["all"]["prompts"] == 3


def test_compbench_has_no_whole_and_dpg_the_categories_of_its_questions() -> None:
    pictures = [row("a", "color", 0.3), row("b", "shape", 0.4)]
    assert set(summarise("t2i-compbench", pictures)["groups"]) == {"color", "shape"}
    rows = [row("a", "dpg", 0.5, entity=1.0, attribute=0.0), row("b", "dpg", 1.0, entity=0.5)]
    groups = summarise("dpg", rows)["groups"]
    assert {name: group["score"] for name, group in groups.items()} == {"entity": 0.75, "attribute": 0.0, "all": 0.75}


def test_scores_that_are_no_verdicts_get_a_bootstrap() -> None:
    groups = summarise("own prompts", [row(str(n), "c", n / 10) for n in range(10)])["groups"]
    assert groups["c"]["low"] < groups["c"]["score"] < groups["c"]["high"] and groups["c"] == groups["all"]


def test_a_difference_is_paired_by_prompt() -> None:
    before = [row(str(n), "colors", 0.0) for n in range(4)] + [row("x", "counting", 1.0), row("y", "counting", None)]
    after = [row(str(n), "colors", 0.5) for n in range(4)] + [row("x", "counting", 1.0), row("y", "counting", 1.0)]
    found = difference("geneval", before, list(reversed(after)))
    assert found["colors"] == {"prompts": 4, "difference": 0.5, "low": 0.5, "high": 0.5}
    assert found["counting"]["prompts"] == 1 and found["all"]["difference"] == pytest.approx(0.25)
    with pytest.raises(ConfigError, match="no scored prompt in common"):
        difference("geneval", before, [row("z", "colors", 1.0)])


def test_the_interval_of_a_mean_over_groups_contains_it_and_is_seeded() -> None:
    groups = [[0.0, 1.0, 1.0, 0.0], [0.2] * 10]
    low, high = stratified_interval(groups)
    assert low < 0.35 < high and stratified_interval(groups) == (low, high)


def test_scores_that_are_not_the_evaluators_own_are_called_so() -> None:
    said = scored_by("geneval", {"detector": "owl"}, "", [row("a", "colors", 1.0)])
    assert "owl (detector)" in said and "not the evaluator of geneval" in said
    assert "oracle" in scored_by("own prompts", {}, "", [row("a", "c", 1.0, oracle=1.0)])
    assert scored_by("own prompts", {}, "eyes behind an endpoint", []) == "Scored by eyes behind an endpoint."
