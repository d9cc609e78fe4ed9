"""Questions about base prompts and negatives."""

from __future__ import annotations

from typing import Any

from ospo_core.config.sections import QuestionsConfig
from ospo_core.engines.base import Request
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
