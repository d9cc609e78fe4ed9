"""The answers of the Janus-Pro family: parsers that live with the habits of a real model."""

from __future__ import annotations

import pytest

from ospo_core.prompts.families import ParseError, PromptAnswer, family

JANUS = family("janus_pro")
ANSWER = PromptAnswer("a goose above a bell", ("goose", "bell"), (("goose", "above", "bell"),))


@pytest.mark.parametrize(
    "answer",
    [
        " Prompt: a goose above a bell.\nConcepts: goose; bell\nRelations: (goose, above, bell)",
        '**Prompt:** "a goose above a bell"\n**Concepts:** goose ; bell\n**Relations:** ( goose , above , bell )',
    ],
)
def test_parse_prompt_lives_with_bold_quotes_and_full_stops(answer: str) -> None:
    assert JANUS.parse_prompt(answer) == ANSWER


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "a goose above a bell",
        "Prompt: a goose\nConcepts: goose",
        "Prompt: a\nConcepts: a;;b\nRelations: none",
        "Prompt: a\nConcepts: a\nRelations: near",
        "Prompt: a\nConcepts: a\nRelations: (a, near)",
        "Prompt: a\nPrompt: b\nConcepts: a\nRelations: none",
    ],
)
def test_answers_in_another_form_are_refused(answer: str) -> None:
    with pytest.raises(ParseError):
        JANUS.parse_prompt(answer)


def test_a_perturbation_needs_its_marker() -> None:
    assert JANUS.parse_perturbation(" Changed: a red bell.") == "a red bell"
    with pytest.raises(ParseError, match="Changed"):
        JANUS.parse_perturbation("a red bell")


def test_dense_prompts_are_two_marked_lines() -> None:
    assert JANUS.parse_dense(JANUS.format_dense("One long text.", "Another.")) == ("One long text.", "Another.")
    with pytest.raises(ParseError):
        JANUS.parse_dense("First: only one")


def test_questions_are_read_from_dashes_numbers_or_plain_lines() -> None:
    expected = ["Is there a bell?", "Is it red?"]
    assert JANUS.parse_questions(JANUS.format_questions(expected)) == expected
    assert JANUS.parse_questions("1. Is there a bell?\n2) Is it red?\n") == expected
    assert JANUS.parse_questions("Is there a bell?\nIs it red?\nIs there a bell?") == expected
    with pytest.raises(ParseError):
        JANUS.parse_questions("Here are the questions:\n- Is there a bell?")
