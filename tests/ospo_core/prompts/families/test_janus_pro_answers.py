"""The answers of the Janus-Pro family: each habit of a chat model, and what it is read as or why it is dropped."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ospo_core.prompts.families import AnswerKind, ParseError, PromptAnswer, family
from ospo_core.prompts.families.janus_pro_answers import JanusProAnswers
from ospo_core.prompts.filters import (
    MISSING_LINE,
    NO_PROMPT,
    NO_QUESTIONS,
    NOT_TEXT,
    NOT_YES_NO,
    STRAY_TEXT,
    UNCLEAR_CONCEPTS,
    UNCLEAR_RELATIONS,
)
from ospo_core.schema import PerturbationKind, SubCategory

JANUS = family("janus_pro")
assert isinstance(JANUS, JanusProAnswers)

LINES = "Prompt: a goose above a bell\nConcepts: goose; bell\nRelations: (goose, above, bell)"
ANSWER = PromptAnswer("a goose above a bell", ("goose", "bell"), (("goose", "above", "bell"),))
SECOND = "Prompt: an owl\nConcepts: owl\nRelations: none"


def said(concepts: str = "goose; bell", relations: str = "none", prompt: str = "a goose above a bell") -> str:
    return f"Prompt: {prompt}\nConcepts: {concepts}\nRelations: {relations}"


PROMPTS: dict[str, tuple[str, PromptAnswer | str]] = {
    "as asked": (LINES, ANSWER),
    "full stop": (LINES.replace("bell\nC", "bell.\nC"), ANSWER),
    "bold": (re.sub(r"(\w+):", r"**\1:**", LINES), ANSWER),
    "bold word, quotes": (
        re.sub(r"(\w+):", r"**\1**:", LINES).replace("a goose above a bell", '"a goose above a bell."'),
        ANSWER,
    ),
    "headings": ("### " + LINES.replace("\n", "\n### "), ANSWER),
    "numbers": ("1. " + LINES.replace("\nC", "\n2. C").replace("\nR", "\n3. R"), ANSWER),
    "dashes, lower case": ("- " + LINES.lower().replace("\n", "\n- "), ANSWER),
    "code fence": (f"```text\n{LINES}\n```", ANSWER),
    "quoted block": ("> " + LINES.replace("\n", "\n> "), ANSWER),
    "preamble": (f"Sure! Here is one more prompt:\n\n{LINES}", ANSWER),
    "opening said twice": (f"Prompt:{LINES}", ANSWER),
    "opening, then the line again": (f"Prompt:\n{LINES}", ANSWER),
    "blank lines between": (LINES.replace("\n", "\n\n"), ANSWER),
    "text below its label": (
        "Prompt:\na goose above a bell\nConcepts:\n- goose\n- bell\nRelations:\n- (goose, above, bell)",
        ANSWER,
    ),
    "numbered label": (LINES.replace("Prompt", "Prompt 1"), ANSWER),
    "two answers": (f"{LINES}\n{SECOND}", ANSWER),
    "two answers, blank line": (f"{LINES}\n\n{SECOND}", ANSWER),
    "words after a blank line": (f"{LINES}\n\nI hope that this helps!", ANSWER),
    "an explanation": (f"{LINES}\nExplanation: both can be seen.", ANSWER),
    "no relations": (said(relations="None."), PromptAnswer(ANSWER.prompt, ANSWER.concepts)),
    "relations without brackets": (said(relations="goose, above, bell"), ANSWER),
    "relation as a sentence": (said(relations="goose above the bell."), ANSWER),
    "relation of two parts": (said(relations="(goose, above bell)"), ANSWER),
    "relation of two parts, the other way": (said(relations="(goose above, bell)"), ANSWER),
    "relations with and": (
        said("a; b; c", "(a, on, b) and (b, near, c).", "x on y"),
        PromptAnswer("x on y", ("a", "b", "c"), (("a", "on", "b"), ("b", "near", "c"))),
    ),
    "commas between concepts": (
        said("cat, dog, and tree", prompt="a cat and a dog near a tree"),
        PromptAnswer("a cat and a dog near a tree", ("cat", "dog", "tree")),
    ),
    "commas with articles": (
        said("a cat, a dog", prompt="a cat, a dog"),
        PromptAnswer("a cat, a dog", ("a cat", "a dog")),
    ),
    "commas within a concept": (
        said("red, wooden bench; tree"),
        PromptAnswer(ANSWER.prompt, ("red, wooden bench", "tree")),
    ),
    "closing semicolon": (said("goose; bell;"), PromptAnswer(ANSWER.prompt, ANSWER.concepts)),
    "empty": ("", MISSING_LINE),
    "bare prompt": ("a goose above a bell", MISSING_LINE),
    "no relations line": ("Prompt: a goose\nConcepts: goose", MISSING_LINE),
    "wrong order": ("Concepts: goose\nPrompt: a goose\nRelations: none", MISSING_LINE),
    "first prompt unfinished": (f"Prompt: a cat\n{LINES}", MISSING_LINE),
    "empty line": (said(concepts=""), MISSING_LINE),
    "prompt on two lines": (LINES.replace("above", "\nabove"), STRAY_TEXT),
    "small talk inside": (LINES.replace("\nC", "\n\nNow the concepts.\nC"), STRAY_TEXT),
    "a comment right below": (f"{LINES}\nI hope that this helps!", STRAY_TEXT),
    "placeholder": (said(prompt="[your prompt]"), NO_PROMPT),
    "only marks": (said(prompt="..."), NO_PROMPT),
    "a question": (said(prompt="Do you want a prompt?"), NO_PROMPT),
    "small talk as prompt": (said(prompt="Sure, here is one"), NO_PROMPT),
    "empty concept": (said("goose;; bell"), UNCLEAR_CONCEPTS),
    "no concepts": (said("none"), UNCLEAR_CONCEPTS),
    "commas within the only concept": (said("red, wooden bench", prompt="a red wooden bench"), UNCLEAR_CONCEPTS),
    "commas within the only concept, so in the prompt": (
        said("red, wooden bench", prompt="a red, wooden bench"),
        UNCLEAR_CONCEPTS,
    ),
    "commas and and": (said("cat, dog and tree", prompt="a cat and a dog near a tree"), UNCLEAR_CONCEPTS),
    "list of lists": ("Prompt: a\nConcepts:\n- goose, bell\n- tree\nRelations: none", UNCLEAR_CONCEPTS),
    "no relation": (said(relations="near"), UNCLEAR_RELATIONS),
    "two parts of nothing known": (said(relations="(cat, near)"), UNCLEAR_RELATIONS),
    "two concepts, no relation": (said(relations="(goose, bell)"), UNCLEAR_RELATIONS),
    "an adjective may be in between": (said(relations="goose near a big bell"), UNCLEAR_RELATIONS),
    "four parts": (said(relations="(goose, far, above, bell)"), UNCLEAR_RELATIONS),
    "six parts": (said(relations="goose, above, bell, bell, below, goose"), UNCLEAR_RELATIONS),
    "words outside the brackets": (
        said(relations="(goose, above, bell) but not (bell, above, goose)"),
        UNCLEAR_RELATIONS,
    ),
    "lone surrogate": (LINES.replace("goose", "goo\ud800se"), NOT_TEXT),
    "bytes that are no text": (LINES.replace("goose", "goo\ufffdse"), NOT_TEXT),
    "control character": (LINES.replace("goose", "goo\x00se"), NOT_TEXT),
}

PERTURBATIONS: dict[str, tuple[str, str]] = {
    "as asked": ("Changed: a red bell", "a red bell"),
    "bold, quotes, full stop": ('**Changed:** "A red bell."', "A red bell"),
    "preamble": ("Here is the changed prompt:\n\nChanged: a red bell", "a red bell"),
    "first of two": ("Changed: a red bell\nChanged: a blue bell", "a red bell"),
    "an explanation": ("Changed: a red bell\nExplanation: the colour is another one.", "a red bell"),
    "bare": ("a red bell", "a red bell"),
    "bare, quoted": ('"A red bell at a fountain."', "A red bell at a fountain"),
}
NOT_PERTURBATIONS = {
    "small talk": ("I cannot do that.", MISSING_LINE),
    "small talk like a prompt": ("The prompt cannot be changed.", MISSING_LINE),
    "two bare lines": ("a red bell\na blue bell", MISSING_LINE),
    "no noun phrase": ("changing the bell", MISSING_LINE),
    "a comment right below": ("Changed: a red bell\n(I changed its colour.)", STRAY_TEXT),
    "placeholder": ("Changed: <prompt>", NO_PROMPT),
}

PAIR = ("A red bell, lit from the left.", "A blue bell, lit from the left.")
DENSE: dict[str, tuple[str, tuple[str, str] | str]] = {
    "as asked": (f"First: {PAIR[0]}\nSecond: {PAIR[1]}", PAIR),
    "blank line between": (f"First: {PAIR[0]}\n\nSecond: {PAIR[1]}", PAIR),
    "bold, below the label": (f"**First:**\n{PAIR[0]}\n\n**Second:**\n{PAIR[1]}", PAIR),
    "two answers": (f"First: {PAIR[0]}\nSecond: {PAIR[1]}\n\nFirst: a\nSecond: b", PAIR),
    "only one": (f"First: {PAIR[0]}", MISSING_LINE),
    "two paragraphs": (f"First: {PAIR[0]}\n\nIt rings.\nSecond: {PAIR[1]}", STRAY_TEXT),
    "a second line": (f"First: {PAIR[0]}\nSecond: {PAIR[1]}\nIt rings.", STRAY_TEXT),
    "placeholder": ("First: ...\nSecond: ...", NO_PROMPT),
}

ASKED = ["Is there a bench?", "Is the bench red?"]
QUESTIONS: dict[str, tuple[str, list[str] | str]] = {
    "as asked": ("- Is there a bench?\n- Is the bench red?", ASKED),
    "numbers": ("1. Is there a bench?\n2) Is the bench red?\n", ASKED),
    "plain lines, one twice": ("Is there a bench?\nIs the bench red?\nIs there a bench?", ASKED),
    "opening said twice": ("-- Is there a bench?\n- Is the bench red?", ASKED),
    "preamble": ("Sure! Here are the questions:\n\n- Is there a bench?\n- Is the bench red?", ASKED),
    "the prompt again": ("Prompt: a red bench\n- Is there a bench?\n- Is the bench red?", ASKED),
    "answered": ("- Is there a bench? Yes\n- Is the bench red? **Yes.**", ASKED),
    "answered below": ("Is there a bench?\nYes.\nIs the bench red?\nYes.", ASKED),
    "answer asked for": ("- Is there a bench? (yes/no)\n- Is the bench red? Yes or no", ASKED),
    "on one line": ("Is there a bench? Is the bench red?", ASKED),
    "on one line, answered": ("Is there a bench? Yes. Is the bench red? Yes.", ASKED),
    "bold, blank lines": ("**Is there a bench?**\n\n**Is the bench red?**", ASKED),
    "under headings": ("**Objects:**\n- Is there a bench?\n**Attributes:**\n- Is the bench red?", ASKED),
    "labelled": ("Q1: Is there a bench?\nQuestion 2: Is the bench red?", ASKED),
    "with a heading each": ("- Object: Is there a bench?\n- Colour: Is the bench red?", ASKED),
    "closing words": ("- Is there a bench?\n- Is the bench red?\n\nThese check everything.", ASKED),
    "the next example": ("- Is there a bench?\n- Is the bench red?\n\nPrompt: two owls\n- Is there an owl?", ASKED),
    "none": ("", NO_QUESTIONS),
    "no question": ("There is a bench.", NO_QUESTIONS),
    "what": ("- What colour is the bench?", NOT_YES_NO),
    "small talk with a question mark": ("Sure, what about these?\n- Is there a bench?", NOT_YES_NO),
    "answered with no": ("- Is there a bench? Yes\n- Is the bench blue? No", NOT_YES_NO),
    "a statement between": ("- Is there a bench?\n- The bench is red.\n- Is it new?", STRAY_TEXT),
    "unfinished": ("Is there a bench? Is the ben", STRAY_TEXT),
    "questions after other words": ("- Is there a bench?\n\nMore about it.\n- Is the bench red?", STRAY_TEXT),
}


def outcome(parse: Callable[[str], Any], answer: str) -> Any:
    try:
        return parse(answer)
    except ParseError as error:
        assert error.answer == answer
        return error.reason


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts(name: str) -> None:
    assert outcome(JANUS.parse_prompt, PROMPTS[name][0]) == PROMPTS[name][1]


@pytest.mark.parametrize("name", [*PERTURBATIONS, *NOT_PERTURBATIONS])
def test_perturbations(name: str) -> None:
    answer, expected = {**PERTURBATIONS, **NOT_PERTURBATIONS}[name]
    assert outcome(JANUS.parse_perturbation, answer) == expected


@pytest.mark.parametrize("name", DENSE)
def test_dense_prompts(name: str) -> None:
    assert outcome(JANUS.parse_dense, DENSE[name][0]) == DENSE[name][1]


@pytest.mark.parametrize("name", QUESTIONS)
def test_questions(name: str) -> None:
    assert outcome(JANUS.parse_questions, QUESTIONS[name][0]) == QUESTIONS[name][1]


PARSERS: dict[AnswerKind, Callable[[str], Any]] = {
    AnswerKind.PROMPT: JANUS.parse_prompt,
    AnswerKind.PERTURBATION: JANUS.parse_perturbation,
    AnswerKind.DENSE: JANUS.parse_dense,
    AnswerKind.QUESTIONS: JANUS.parse_questions,
}
WORDS = st.text("abcdefghijklmnopqrstuvwxyz", min_size=2, max_size=8).filter(
    lambda word: word not in {"none", "sure", "sorry", "certainly", "here", "prompt", "prompts", "no", "and"}
)


def phrases(least: int, most: int) -> st.SearchStrategy[str]:
    return st.lists(WORDS, min_size=least, max_size=most).map(" ".join)


RELATIONS = st.lists(st.tuples(phrases(1, 2), phrases(1, 2), phrases(1, 2)), max_size=3).map(tuple)
WRITTEN = st.builds(PromptAnswer, phrases(2, 9), st.lists(phrases(1, 3), min_size=1, max_size=4).map(tuple), RELATIONS)
ASKING = st.lists(phrases(2, 6).map(lambda text: f"Is there {text}?"), min_size=1, max_size=6, unique=True)


@given(WRITTEN, phrases(3, 9), ASKING)
@settings(deadline=None, max_examples=40)
def test_parsing_undoes_formatting(written: PromptAnswer, text: str, questions: list[str]) -> None:
    assert JANUS.parse_prompt(JANUS.format_prompt(written)) == written
    assert JANUS.parse_perturbation(JANUS.format_perturbation("one word", text)) == text
    assert JANUS.parse_dense(JANUS.format_dense(f"{text}.", text)) == (f"{text}.", text)
    assert JANUS.parse_questions(JANUS.format_questions(questions)) == questions


FORM = (
    "Prompt:",
    "Concepts:",
    "Relations:",
    "Changed:",
    "First:",
    "Second:",
    "none",
    "(a, b, c)",
    "Is it?",
    "Yes",
    "No",
)
MARKS = ("\n", "\n\n", " ", "- ", "**", "1. ", ";", ",", "?", "a goose", "\ud800", "```", ":", "(", ")", "\u2028")
PIECES = st.sampled_from(FORM + MARKS)


@pytest.mark.parametrize("kind", AnswerKind)
@given(st.one_of(st.text(), st.lists(PIECES, max_size=30).map("".join)))
@settings(deadline=None, max_examples=100)
def test_any_text_is_parsed_or_refused_for_a_named_reason(kind: AnswerKind, text: str) -> None:
    try:
        PARSERS[kind](text)
    except ParseError as error:
        assert re.fullmatch(r"[a-z_]+", error.reason)


@pytest.mark.parametrize("kind", AnswerKind)
@given(data=st.data())
@settings(deadline=None, max_examples=15)
def test_whatever_matches_a_pattern_parses(kind: AnswerKind, data: st.DataObject) -> None:
    pattern = JANUS.pattern(kind)
    assert pattern is not None
    PARSERS[kind](data.draw(st.from_regex(pattern, fullmatch=True).filter(lambda text: "Concepts: none" not in text)))


@pytest.mark.parametrize("kind", AnswerKind)
@pytest.mark.parametrize("filler", [" ", "*", "\n", "- ", "(", "?", "Prompt:", "a, ", "Is it? ", "1. ", ";", "yes "])
def test_fifty_kilobytes_of_one_thing_take_no_time(kind: AnswerKind, filler: str) -> None:
    opening = {AnswerKind.QUESTIONS: "- ", AnswerKind.PROMPT: "Prompt: a goose\nConcepts: a\nRelations:"}.get(
        kind, "Changed:"
    )
    started = time.process_time()
    for text in (filler * (50_000 // len(filler)), opening + filler * (50_000 // len(filler)) + "x"):
        outcome(PARSERS[kind], text)
    assert time.process_time() - started < 0.5


def test_what_the_family_shows_matches_its_patterns_and_begins_with_the_opening() -> None:
    complex_seeds = JANUS.seed_examples(SubCategory.COMPLEX)
    chats = {
        AnswerKind.PROMPT: JANUS.write_prompt(SubCategory.COMPLEX, complex_seeds),
        AnswerKind.PERTURBATION: JANUS.perturb(PerturbationKind.DROP, "a bell", SubCategory.COLOR_2),
        AnswerKind.DENSE: JANUS.densify("a bell", "a drum", SubCategory.COLOR_2),
        AnswerKind.QUESTIONS: JANUS.decompose("a bell", SubCategory.COLOR_2),
    }
    for kind, chat in chats.items():
        pattern = JANUS.pattern(kind)
        assert pattern is not None and pattern.startswith(chat.opening)
        for _, answer in chat.examples:
            assert re.fullmatch(pattern, answer), answer
            assert not any(stop in answer for stop in JANUS.stop(kind))


def test_the_shapes_family_has_neither_patterns_nor_stop_strings() -> None:
    shapes = family("shapes")
    assert {shapes.pattern(kind) for kind in AnswerKind} == {None}
    assert {shapes.stop(kind) for kind in AnswerKind} == {()}
