"""The accuracy of one model counts each prompt once, by the oracle if there is one."""

from __future__ import annotations

from typing import Any

import pytest

from ospo_core.errors import StageError
from ospo_core.stages.evaluation import accuracy_by_category


def row(item: str, category: str, vqa: bool, oracle: bool | None = None) -> dict[str, Any]:
    return {"item_id": item, "category": category, "vqa_correct": vqa, "oracle_correct": oracle}


def test_accuracy_counts_each_prompt_once_with_the_mean_of_its_samples() -> None:
    rows = [row("a", "layout", True), row("a", "layout", False), row("b", "layout", True), row("c", "complex", False)]
    found = accuracy_by_category(rows, "auto")
    assert found["metric"] == "vqa"
    groups = found["groups"]
    assert (groups["layout"]["prompts"], groups["layout"]["accuracy"]) == (2, 0.75)
    assert groups["all"]["accuracy"] == pytest.approx(0.5)
    assert groups["complex"]["low"] <= 0 <= groups["complex"]["high"]


def test_oracle_decides_where_there_is_one() -> None:
    rows = [row("a", "layout", False, True), row("b", "layout", False, True)]
    assert accuracy_by_category(rows, "auto")["groups"]["all"]["accuracy"] == 1.0
    with pytest.raises(StageError, match="oracle"):
        accuracy_by_category([row("a", "layout", True)], "oracle")
