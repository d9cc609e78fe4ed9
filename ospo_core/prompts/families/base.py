"""What every model family defines about its text: chat format, instructions, answer formats and their parsers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from ospo_core.errors import OspoError
from ospo_core.prompts.filters import NOT_TEXT
from ospo_core.schema import PerturbationKind, SubCategory

Relation = tuple[str, str, str]
"""Subject, relation, object, e.g. `("red circle", "above", "blue square")`."""

IMAGE_MARKER = "{image}"
"""Marks in `vqa_text` where the image placeholders go; the tags around them are part of the text."""


_UNDECODED = "\ufffd"
"""What a tokenizer decodes bytes to that are not UTF-8."""


class AnswerKind(StrEnum):
    """What the model is asked to write."""

    PROMPT = "prompt"
    PERTURBATION = "perturbation"
    DENSE = "dense"
    QUESTIONS = "questions"


@dataclass(frozen=True)
class PromptAnswer:
    """A prompt and what it mentions (OSPO, section 3.1).

    Args:
        prompt: one sentence that describes a picture.
        concepts: the objects with their attributes, e.g. `("red circle", "blue square")`.
        relations: the relations between concepts; empty if the prompt states none.
    """

    prompt: str
    concepts: tuple[str, ...]
    relations: tuple[Relation, ...] = ()


@dataclass(frozen=True)
class Chat:
    """An instruction to the text model, with examples as earlier turns of the chat and the first words of its answer.

    Args:
        instruction: the last turn of the user.
        examples: earlier turns: an instruction and its answer.
        opening: first words of the answer; the model continues them, so an answer cannot begin with small talk.
    """

    instruction: str
    examples: tuple[tuple[str, str], ...] = ()
    opening: str = ""

    def answer(self, continuation: str) -> str:
        """Return the whole answer: the opening and what the model wrote after it."""
        return self.opening + continuation


class ParseError(OspoError):
    """An answer that does not have the expected form; it is dropped and counted, never trained on.

    Args:
        reason: the name under which the drop is counted.
        answer: the answer as the model wrote it.
        detail: what is missing or superfluous.
    """

    def __init__(self, reason: str, answer: str = "", detail: str = "the answer has the wrong form") -> None:
        super().__init__(
            detail, field=reason, value=answer, remedy="Such answers are dropped, counted and generated again"
        )
        self.reason, self.answer = reason, answer


def check_text(answer: str) -> None:
    """Check that an answer is text: it can be stored, and shows as it is.

    Raises:
        ParseError: it contains control characters, lone surrogates, or bytes that are not UTF-8.
    """
    odd = next((one for one in answer if not (one.isprintable() or one.isspace()) or one == _UNDECODED), None)
    if odd is not None:
        raise ParseError(NOT_TEXT, answer, f"the answer contains the character {odd!a}")


def seed_prompts(table: str) -> dict[SubCategory, list[PromptAnswer]]:
    """Read prompts from lines `sub-category | prompt | concept; ... | subject, relation, object; ...`."""
    seeds: dict[SubCategory, list[PromptAnswer]] = {}
    for line in table.strip().splitlines():
        name, prompt, concepts, *relations = (part.strip() for part in line.split("|"))
        triples = [tuple(relation.split(", ")) for relation in "".join(relations).split("; ") if relation]
        answer = PromptAnswer(prompt, tuple(concepts.split("; ")), tuple((a, b, c) for a, b, c in triples))
        seeds.setdefault(SubCategory(name), []).append(answer)
    return seeds


class PromptFamily(ABC):
    """The text side of one family of models; instances hold no state.

    No text starts with the begin-of-sequence token: the tokenizer adds it.
    `parse_*` is the inverse of `format_*` and raises `ParseError` for any other text.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    """Raised when a change of texts or parsers changes what the stages write; part of their fingerprints from 2 on."""
    yes: ClassVar[tuple[str, ...]]
    no: ClassVar[tuple[str, ...]]
    """Spellings of the two answers to a question about a picture; each is one token."""
    negative_prompt: ClassVar[str] = ""
    """What guidance leads away from, in models whose unconditional prompt is a text (`UnifiedModel.unconditional`)."""

    @abstractmethod
    def chat_text(self, chat: Chat) -> str:
        """Return the text that the model continues: every turn of the chat, then the opening of the answer."""

    @abstractmethod
    def vqa_text(self, question: str) -> str:
        """Return the text that precedes the answer to `question` about a picture; `{image}` marks its placeholders."""

    @abstractmethod
    def generation_text(self, prompt: str) -> str:
        """Return the text that precedes the image tokens; it ends with the begin-of-image tag."""

    @abstractmethod
    def seed_examples(self, sub_category: SubCategory) -> list[PromptAnswer]:
        """Return hand-written prompts: the first few-shot examples, used until the model has written its own."""

    @abstractmethod
    def write_prompt(self, sub_category: SubCategory, examples: Sequence[PromptAnswer]) -> Chat:
        """Return the instruction to write one new prompt similar to the examples."""

    @abstractmethod
    def perturb(self, kind: PerturbationKind, prompt: str, sub_category: SubCategory) -> Chat:
        """Return the instruction to change one detail of `prompt`."""

    @abstractmethod
    def densify(self, prompt: str, negative: str, sub_category: SubCategory) -> Chat:
        """Return the instruction to expand a prompt and its negative together."""

    @abstractmethod
    def decompose(self, prompt: str, sub_category: SubCategory | None = None) -> Chat:
        """Return the instruction to write yes/no questions about a prompt, of a sub-category if that is known."""

    @abstractmethod
    def format_prompt(self, answer: PromptAnswer) -> str:
        """Return the answer to `write_prompt`."""

    @abstractmethod
    def format_dense(self, dense: str, dense_negative: str) -> str:
        """Return the answer to `densify`."""

    @abstractmethod
    def format_questions(self, questions: Sequence[str]) -> str:
        """Return the answer to `decompose`."""

    def stop(self, kind: AnswerKind) -> tuple[str, ...]:
        """Return the strings that end an answer besides the end-of-sequence token; by default none."""
        return ()

    def pattern(self, kind: AnswerKind) -> str | None:
        """Return a regular expression whose matches all parse, for engines with structured output; None: write freely.

        It describes whole answers and begins literally with the opening of the chat, if that has one.
        """
        return None

    @abstractmethod
    def parse_prompt(self, answer: str) -> PromptAnswer:
        """Parse the answer to `write_prompt`; raises ParseError."""

    @abstractmethod
    def parse_perturbation(self, answer: str) -> str:
        """Parse the answer to `perturb`; raises ParseError."""

    @abstractmethod
    def parse_dense(self, answer: str) -> tuple[str, str]:
        """Parse the answer to `densify`: the dense prompt and the dense negative; raises ParseError."""

    @abstractmethod
    def parse_questions(self, answer: str) -> list[str]:
        """Parse the answer to `decompose`, without repeated questions; raises ParseError."""
