"""A condition chooses items by the columns of the prompts table; one that cannot be used is named."""

from __future__ import annotations

from typing import Any

import pytest

from ospo_core.errors import ConfigError
from ospo_core.schema import table_from_rows
from ospo_core.stages.partial import chosen_items


def row(item: str, category: str) -> dict[str, Any]:
    fields = {"item_id": item, "category": category, "sub_category": "color_1", "prompt": f"prompt of {item}"}
    return {**fields, "concepts": [], "relations": []}


PROMPTS = table_from_rows("prompts", [row("x1", "layout"), row("x2", "attribute")])


def test_condition_chooses_items_by_the_columns_of_the_prompts_table() -> None:
    assert chosen_items(PROMPTS, "category == 'layout'") == {"x1"}
    assert chosen_items(PROMPTS, "category = 'layout' OR prompt LIKE '%x2%'") == {"x1", "x2"}
    assert chosen_items(PROMPTS, "sub_category = 'none'") == frozenset()


@pytest.mark.parametrize("where", ["nope = 1", "category ===", "prompt", "1; drop table x", "seed("])
def test_condition_that_cannot_be_used_names_itself_and_the_columns(where: str) -> None:
    with pytest.raises(ConfigError, match=r"where: is not a condition.*item_id, category") as caught:
        chosen_items(PROMPTS, where)
    assert caught.value.value == where
