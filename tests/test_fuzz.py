"""Hostile inputs give a value or one clear message: a short run of `python -m tests.manual.fuzz`, always the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.fuzz_areas import AREAS
from tests.support.fuzzing import Area, Broken, check_message

EXAMPLES = {"configurations": 200, "answers": 400, "stored-files": 100, "endpoint-bodies": 100, "command-lines": 120}


@pytest.mark.parametrize("name", AREAS)
def test_every_input_gives_a_value_or_one_clear_message(name: str, tmp_path: Path) -> None:
    area = AREAS[name](tmp_path / "area")

    @settings(
        derandomize=True,
        database=None,
        deadline=None,
        max_examples=EXAMPLES[name],
        suppress_health_check=list(HealthCheck),
    )
    @given(area.inputs())
    def check(one: Any) -> None:
        area.check(one)

    with area.opened():
        check()


class Careless(Area):
    """Does with a text what no area may."""

    name = "careless"

    def inputs(self) -> st.SearchStrategy[Any]:
        return st.text()

    def attempt(self, given: Any) -> None:
        (self.root / given).write_text("x", encoding="utf-8")


def test_a_file_in_a_wrong_place_is_noticed(tmp_path: Path) -> None:
    area = Careless(tmp_path)
    area.check("inside/x")
    with pytest.raises(Broken, match=r"wrote outside .*'beside'"):
        area.check("beside")


@pytest.mark.parametrize(
    ("message", "code"),
    [("fine.", 3), ("no stop", 1), ("", 2), ("u:hush-hush-9f2c.", 1), ("Traceback (most recent call last).", 1)],
)
def test_a_message_that_is_not_as_promised_is_noticed(message: str, code: int) -> None:
    check_message("as promised.", 2)
    with pytest.raises(Broken):
        check_message(message, code)
