"""A condition chooses items by the columns of the prompts table; one that cannot be used is named."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ospo_core.errors import ConfigError
from ospo_core.schema import table_from_rows
from ospo_core.stages.partial import FUNCTIONS, LONGEST_CONDITION, chosen_items


def row(item: str, category: str) -> dict[str, Any]:
    fields = {"item_id": item, "category": category, "sub_category": "color_1", "prompt": f"prompt of {item}"}
    return {**fields, "concepts": [], "relations": []}


PROMPTS = table_from_rows("prompts", [row("x1", "layout"), row("x2", "attribute")])


_PIECES = (
    "( ) , = < AND OR NOT IN LIKE IS NULL || - ~ prompt category concepts relations 1 -1 1.5 'a' '' true CASE WHEN"
)
_WORDS = [*sorted(FUNCTIONS), *_PIECES.split(), "THEN", "END"]


def test_condition_chooses_items_by_the_columns_of_the_prompts_table() -> None:
    assert chosen_items(PROMPTS, "category == 'layout'") == {"x1"}
    assert chosen_items(PROMPTS, "category = 'layout' OR prompt LIKE '%x2%'") == {"x1", "x2"}
    assert chosen_items(PROMPTS, "sub_category = 'none'") == frozenset()


@pytest.mark.parametrize("where", ["nope = 1", "category ===", "prompt", "1; drop table x", "seed("])
def test_condition_that_cannot_be_used_names_itself_and_the_columns(where: str) -> None:
    with pytest.raises(ConfigError, match=r"where: is not a condition.*item_id, category") as caught:
        chosen_items(PROMPTS, where)
    assert caught.value.value == where


@pytest.mark.parametrize(
    ("where", "problem"),
    [
        ("1 = 1" + " AND 1 = 1" * 10_000, "more than 2000"),
        ("(" * 5000 + "1 = 1" + ")" * 5000, "more than 2000"),
        ("greatest() = 1", "it calls greatest; functions are abs,"),
        ("lower(prompt) = 'a' OR rpad(prompt, 1000000000000, 'x') = 'a'", "it calls rpad"),
        ('"rpad"(prompt, 1000000000000, 1) = 1', "it calls"),
        ("rpad/**/(prompt, 1000000000000, 'x') = 'a'", "a comment"),
        ("category = 'layout' -- and more", "a comment"),
        ("category = '\ud800'", "cannot be printed"),
        ("category = '\0'", "cannot be printed"),
        ("regexp_like(prompt, '(')", "regex"),
    ],
)
def test_conditions_that_would_crash_or_fill_the_memory_are_refused(where: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=rf"where: is not a condition.*{re.escape(problem)}") as caught:
        chosen_items(PROMPTS, where)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "where",
    [
        "NOT (category IN ('layout', 'complex')) AND lower(prompt) LIKE '%x2%'",
        "prompt <> 'rpad(' AND prompt <> '--/*' AND\n\tstarts_with(item_id, 'x') AND category = 'attribute'",
        "length(prompt) BETWEEN 1 AND 99 AND coalesce(category, '') = 'attribute' ",
    ],
)
def test_ordinary_conditions_may_call_functions(where: str) -> None:
    assert chosen_items(PROMPTS, where) == {"x2"}


@pytest.mark.parametrize("term", [" AND 1=1", " OR 1=1", "+1", "||'a'", "*1"])
def test_the_longest_condition_can_be_evaluated(term: str) -> None:
    head, tail = ("1", " <> 0") if term[0] in "+*" else ("'a'", " <> 'b'") if term[0] == "|" else ("1=1", "")
    where = head + term * ((LONGEST_CONDITION - len(head + tail)) // len(term)) + tail
    assert chosen_items(PROMPTS, where) == {"x1", "x2"}


@settings(max_examples=300, deadline=None)
@given(st.text() | st.lists(st.sampled_from(_WORDS), max_size=12).map(" ".join))
def test_no_text_at_all_fails_in_another_way(where: str) -> None:
    try:
        assert chosen_items(PROMPTS, where) <= {"x1", "x2"}
    except ConfigError as error:
        assert error.field == "where" and error.remedy
