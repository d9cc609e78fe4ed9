"""Numbers, durations, reasons and changed words as people read them; texts that cannot become markup."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ospo_core.report import formats
from ospo_core.report.formats import changed_words

TEXT = st.lists(st.sampled_from(["a", "red", "blue", "star", "of"]), max_size=8).map(" ".join)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (7500, "2 h 05 min")],
)
def test_durations(seconds: float, said: str) -> None:
    assert formats.duration(seconds) == said


def test_numbers_in_words() -> None:
    assert formats.percent(0.6131) == "61.3 %" and formats.percent(None) == formats.DASH
    assert formats.points(-0.0049) == f"{formats.MINUS}0.5" and formats.points(0.0) == "0.0"
    assert formats.signed(-0.0001) == "0.00" and formats.signed(None) == formats.DASH
    assert formats.whole(15000) == "15\N{NARROW NO-BREAK SPACE}000"
    assert formats.decimal(-0.5) == f"{formats.MINUS}0.50" and formats.decimal(None) == formats.DASH
    assert formats.moment("2026-01-02T03:04:05+02:00") == "2026-01-02 01:04 UTC" and formats.moment("x") == "x"


def test_reasons_are_in_words_and_the_most_frequent_is_first() -> None:
    said = formats.reasons({"near_duplicate": 2, "unparsable": 0, "duplicate": 7})
    assert said == [("duplicate", "7"), ("near duplicate", "2")]


def test_a_replaced_word_is_removed_then_added() -> None:
    assert changed_words("a red circle", "a blue circle") == [
        ("same", "a"),
        ("removed", "red"),
        ("added", "blue"),
        ("same", "circle"),
    ]
    assert changed_words("", "a star") == [("added", "a star")] and changed_words("", "") == []


@settings(max_examples=50, deadline=None)
@given(TEXT, TEXT)
def test_both_texts_can_be_put_together_again(first: str, second: str) -> None:
    changes = changed_words(first, second)
    assert " ".join(change.words for change in changes if change.op != "added") == first
    assert " ".join(change.words for change in changes if change.op != "removed") == second


def test_text_of_a_model_cannot_become_markup() -> None:
    assert formats.escaped("a|b <b>\n![x](y) `c` _d_") == r"a\|b \<b\> \!\[x\](y) \`c\` \_d\_"


def test_a_markdown_table_has_a_rule_that_aligns_figures() -> None:
    assert formats.markdown_table(["a", "b"], [["x", "1"]], figures=(1,)) == [
        "| a | b |",
        "| --- | ---: |",
        "| x | 1 |",
    ]
