"""Answers that no model writes on purpose: they are parsed or dropped with a reason, in time linear in their length."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ospo_core.prompts.failures import printable
from ospo_core.prompts.families import FAMILIES, ParseError
from ospo_core.prompts.filters import NOT_TEXT, NUMBER_ABOVE_FOUR, Deduplicator, number_above_four, perturbation_problem
from ospo_core.shapes.grammar import GrammarError, parse
from tests.support.family_answers import PARSERS, good_answers

SECONDS = 1.0
"""For 100 000 characters: linear parsers take a tenth, and a quadratic one 20 times as long."""

CHECKS: dict[str, Callable[[str], object]] = {
    "number_above_four": number_above_four,
    "perturbation_problem": lambda text: perturbation_problem(text, "a red circle", ["a blue circle"]),
    "deduplicator": lambda text: Deduplicator(0.8, [text])(text + " too"),
    "printable": printable,
    "grammar": parse,
}
UNITS = [
    " ",
    "\n",
    "\t",
    "*",
    '"',
    "[",
    "(",
    "9",
    "9,",
    "-",
    "?",
    ".",
    "`",
    "a red circle and ",
    "Is it? ",
    "Prompt: a\n",
]
BEGINNINGS = ["", "Prompt: a red bench\nConcepts: bench; red bench\nRelations: ", "a red circle | red circle | "]


@pytest.mark.parametrize("name", [*PARSERS, *CHECKS])
def test_a_long_answer_takes_time_linear_in_its_length(name: str) -> None:
    function = {**PARSERS, **CHECKS}[name]
    for unit in UNITS:
        for beginning in BEGINNINGS:
            answer = beginning + unit * (100_000 // len(unit)) + "x"
            begun = time.process_time()
            with contextlib.suppress(ParseError, GrammarError):
                function(answer)
            assert time.process_time() - begun < SECONDS, (unit, beginning)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("odd", ["\ud800", "\udcff", "\x00", "\x1b[31m", "\ufffd", "\u202e"])
def test_what_cannot_be_stored_or_shown_is_dropped_with_a_reason(name: str, odd: str) -> None:
    family = FAMILIES[name]
    for task, answer in good_answers(family).items():
        getattr(family, task)(answer)
        for place in (0, len(answer) // 2, len(answer)):
            with pytest.raises(ParseError) as caught:
                getattr(family, task)(answer[:place] + odd + answer[place:])
            assert caught.value.reason == NOT_TEXT
            printable(caught.value.answer).encode()


@given(answer=st.text(alphabet=st.characters(codec=None), max_size=60))
def test_any_answer_is_parsed_or_dropped_with_a_reason(answer: str) -> None:
    for parser in PARSERS.values():
        try:
            parser(answer)
        except ParseError as error:
            assert error.reason


@pytest.mark.parametrize("digits", ["9" * 5000, "1," * 5000 + "0", "\u0664" * 4999 + "\u0665"])
def test_numbers_that_python_does_not_read_are_above_four(digits: str) -> None:
    assert number_above_four(f"{digits} red circles") == NUMBER_ABOVE_FOUR
    assert number_above_four(f"{'0' * 5000}4 red circles") is None
