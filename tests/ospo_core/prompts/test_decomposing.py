"""Questions about base prompts and negatives."""

from __future__ import annotations

from typing import Any

import pytest

from ospo_core.config.sections import QuestionsConfig
from ospo_core.engines.base import Request
from ospo_core.errors import StageError
from ospo_core.prompts import filters
from ospo_core.prompts.decomposing import decompose_prompts
from ospo_core.prompts.families import family
from ospo_core.prompts.generation import RETRY_TEMPERATURE
from ospo_core.schema import table_from_rows
from tests.support.fake_engine import FakeEngine, instruction_of

SHAPES = family("shapes")
ROWS = [
    {"item_id": "i", "sub_category": "shape_1", "variant": 0, "prompt": "a star", "negative_prompt": "a heart"},
    {"item_id": "i", "sub_category": "shape_1", "variant": 2, "prompt": "a star", "negative_prompt": "a box"},
    {"item_id": "j", "sub_category": "shape_1", "variant": 0, "prompt": "a heart", "negative_prompt": "a star"},
]


def ask(request: Request) -> str:
    return f"is there {instruction_of(request).removeprefix('ask about : ').removesuffix(' .')} ?"


def decompose(engine: FakeEngine, **config: Any) -> tuple[Any, Any, Any, Any]:
    return decompose_prompts(engine, SHAPES, ROWS, QuestionsConfig(**config), seed=3)


def test_base_prompts_are_asked_about_once_an_item_and_every_negative() -> None:
    rows, drops, counts, _ = decompose(FakeEngine(ask))
    assert [(row["item_id"], row["of"], row["prompt"]) for row in rows] == [
        ("i", "base", "a star"),
        ("i", "0", "a heart"),
        ("i", "2", "a box"),
        ("j", "base", "a heart"),
        ("j", "0", "a star"),
    ]
    assert rows[2]["questions"] == ["is there a box ?"] and not drops
    assert table_from_rows("questions", rows).num_rows == 5
    assert counts["calls"] == 3 and counts["questions"] == 3


def test_a_greedy_answer_that_failed_is_sampled_again() -> None:
    engine = FakeEngine(lambda request: ask(request) if request.temperature else "no question")
    rows, drops, counts, _ = decompose(engine)
    assert len(rows) == 5 and not drops and counts["retries"] == 3
    assert [call[0].temperature for call in engine.calls] == [0, RETRY_TEMPERATURE]


def test_too_many_and_truncated_answers_are_dropped_by_reason() -> None:
    _, drops, _, _ = decompose(FakeEngine(lambda request: "a ? b ? c ?"), max_questions=2)
    assert drops == {filters.TOO_MANY_QUESTIONS: 5}
    _, drops, _, _ = decompose(FakeEngine(ask, lambda request: "length"))
    assert drops == {filters.TRUNCATED: 5}


def test_too_few_readable_answers_are_not_asked_for_again() -> None:
    rows = [
        {**ROWS[0], "item_id": str(k), "prompt": f"a star {k}", "negative_prompt": f"a heart {k}"} for k in range(8)
    ]
    engine = FakeEngine(lambda request: "no idea")
    with pytest.raises(StageError, match=r"only 0 of the first 16 answers \(questions\)"):
        decompose_prompts(engine, SHAPES, rows, QuestionsConfig(), 3, min_parsed=0.5)
    assert len(engine.calls) == 1
    few = decompose_prompts(engine, SHAPES, rows[:7], QuestionsConfig(), 3, min_parsed=0.5)
    assert few[0] == []  # too few to judge a model by
