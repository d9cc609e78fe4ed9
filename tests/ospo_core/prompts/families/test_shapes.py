"""The shapes family: exact texts, and parsers that invert the formats and refuse anything else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ospo_core.prompts.families import IMAGE_MARKER, Chat, ParseError, PromptAnswer, family
from ospo_core.prompts.filters import UNPARSABLE
from ospo_core.schema import PerturbationKind, SubCategory

SHAPES = family("shapes")
WORDS = st.sampled_from(["a", "red", "blue", "circle", "square", "left", "of", "two", "striped", "above"])
PHRASE = st.lists(WORDS, min_size=1, max_size=6).map(" ".join)


def test_chat_vqa_and_generation_texts_are_exact() -> None:
    assert SHAPES.chat_text(Chat("ask about : a circle .")) == "<|User|> : ask about : a circle . <|Assistant|> :"
    assert SHAPES.generation_text("a circle") == "<|User|> : a circle <|Assistant|> : <begin_of_image>"
    assert SHAPES.vqa_text("is there a circle ?") == (
        f"<|User|> : <begin_of_image>{IMAGE_MARKER}<end_of_image> is there a circle ? <|Assistant|> :"
    )


def test_instructions_are_exact() -> None:
    examples = [PromptAnswer("a red circle", ("red circle",)), PromptAnswer("a star", ("star",))]
    assert SHAPES.write_prompt(SubCategory.SPATIAL_2D, examples) == Chat(
        "write a prompt about flat layout . examples : a red circle ; a star ."
    )
    assert SHAPES.perturb(PerturbationKind.SWAP, "a star", SubCategory.COLOR_1) == Chat("swap one detail of : a star .")
    assert SHAPES.densify("a star", "a heart", SubCategory.COLOR_1) == Chat("place both : a star | a heart .")
    assert SHAPES.decompose("a star") == Chat("ask about : a star .")


def test_answers_are_exact() -> None:
    answer = PromptAnswer(
        "a red circle above a star", ("red circle", "star"), (("red circle", "above", "star"), ("star", "below", "sky"))
    )
    assert SHAPES.format_prompt(answer) == (
        "a red circle above a star | red circle , star | red circle , above , star ; star , below , sky"
    )
    assert SHAPES.format_prompt(PromptAnswer("a star", ("star",))) == "a star | star | none"
    assert SHAPES.format_dense("x", "y") == "x | y"
    assert SHAPES.format_questions(["is there a star ?", "is it red ?"]) == "is there a star ? is it red ?"


@settings(max_examples=50, deadline=None)
@given(PHRASE, st.lists(PHRASE, min_size=1, max_size=3), st.lists(st.tuples(PHRASE, PHRASE, PHRASE), max_size=2))
def test_parse_prompt_inverts_format_prompt(
    prompt: str, concepts: list[str], relations: list[tuple[str, str, str]]
) -> None:
    answer = PromptAnswer(prompt, tuple(concepts), tuple(relations))
    assert SHAPES.parse_prompt(SHAPES.format_prompt(answer)) == answer


@settings(max_examples=50, deadline=None)
@given(PHRASE, PHRASE, st.lists(PHRASE, min_size=1, max_size=5, unique=True))
def test_parse_dense_and_questions_invert_their_formats(first: str, second: str, bodies: list[str]) -> None:
    questions = [f"{body} ?" for body in bodies]
    assert SHAPES.parse_dense(SHAPES.format_dense(first, second)) == (first, second)
    assert SHAPES.parse_questions(SHAPES.format_questions(questions)) == questions


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab |,;?:.", max_size=30))
def test_any_answer_is_parsed_or_refused_with_a_reason(text: str) -> None:
    for parse in (SHAPES.parse_prompt, SHAPES.parse_dense, SHAPES.parse_questions):
        try:
            parse(text)
        except ParseError as error:
            assert error.reason == UNPARSABLE


@pytest.mark.parametrize(
    "answer",
    ["", "a star", "a star | star", " | star | none", "a star |  | none", "a star | star | a , b", "a | b | c | d"],
)
def test_a_prompt_without_its_three_parts_is_refused(answer: str) -> None:
    with pytest.raises(ParseError) as caught:
        SHAPES.parse_prompt(answer)
    assert caught.value.reason == UNPARSABLE


@pytest.mark.parametrize("answer", ["", "is there a star", "is there a star ? is it", "? ?"])
def test_questions_must_be_finished(answer: str) -> None:
    with pytest.raises(ParseError):
        SHAPES.parse_questions(answer)


def test_spacing_around_marks_does_not_matter_and_repeated_questions_count_once() -> None:
    assert SHAPES.parse_questions("is there a star?  is there a star ?") == ["is there a star ?"]
    assert SHAPES.parse_prompt("a star|star|none") == PromptAnswer("a star", ("star",))


def test_a_perturbation_is_one_sentence() -> None:
    assert SHAPES.parse_perturbation(" a red  star ") == "a red star"
    with pytest.raises(ParseError) as marked:
        SHAPES.parse_perturbation("a star | a heart")
    assert marked.value.reason == UNPARSABLE
