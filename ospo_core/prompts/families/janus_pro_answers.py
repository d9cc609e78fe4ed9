"""The answers of Janus-Pro: labelled lines, written for the few-shot examples and read from what the model writes."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ospo_core.prompts.families.base import ParseError, PromptAnswer, PromptFamily, Relation
from ospo_core.prompts.filters import UNPARSABLE

NO_RELATION = "none"

_LINE = re.compile(r"^[\s*_]*([A-Za-z]+)[\s*_]*:[\s*_]*(.*?)[\s*_]*$")
_BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)])?\s*")
_RELATION = re.compile(r"\(([^()]*)\)")


def _marked_lines(answer: str, names: tuple[str, ...]) -> list[str]:
    """Return the texts of the lines `Name: text` for `names`; raises ParseError unless each occurs exactly once."""
    found: dict[str, str] = {}
    for match in filter(None, map(_LINE.match, answer.splitlines())):
        name, text = match.group(1).capitalize(), match.group(2)
        if name in names and found.setdefault(name, text) is not text:
            raise ParseError(UNPARSABLE, answer, f"the line {name} occurs twice")
    if missing := [name for name in names if not found.get(name)]:
        raise ParseError(UNPARSABLE, answer, f"no line {' and '.join(missing)}")
    return [found[name] for name in names]


def _plain(sentence: str) -> str:
    """Return a prompt without surrounding quotes and without a final full stop."""
    return " ".join(sentence.strip(" \"'“”").rstrip(".").split())


def _relations(text: str, answer: str) -> tuple[Relation, ...]:
    """Parse `(subject, relation, object); ...` or `none`."""
    if text.strip(" .()").lower() == NO_RELATION:
        return ()
    relations = [[part.strip() for part in group.split(",")] for group in _RELATION.findall(text)]
    if not relations:
        raise ParseError(UNPARSABLE, answer, "expected relations in brackets, or none")
    if any(len(words) != 3 or not all(words) for words in relations):
        raise ParseError(UNPARSABLE, answer, "a relation needs subject, relation and object")
    return tuple((subject, relation, other) for subject, relation, other in relations)


class JanusProAnswers(PromptFamily):
    """The answer side of `JanusProFamily`: `format_*` and their inverses `parse_*`."""

    def format_prompt(self, answer: PromptAnswer) -> str:
        """Return the lines `Prompt:`, `Concepts:` (separated by semicolons) and `Relations:` (triples, or none)."""
        relations = "; ".join(f"({', '.join(relation)})" for relation in answer.relations)
        concepts = "; ".join(answer.concepts)
        return f"Prompt: {answer.prompt}\nConcepts: {concepts}\nRelations: {relations or NO_RELATION}"

    def format_perturbation(self, changed: str) -> str:
        """Return the line `Changed:`, the answer to `perturb`."""
        return f"Changed: {changed}"

    def format_dense(self, dense: str, dense_negative: str) -> str:
        """Return the lines `First:` and `Second:`."""
        return f"First: {dense}\nSecond: {dense_negative}"

    def format_questions(self, questions: Sequence[str]) -> str:
        """Return one question per line, each after a dash."""
        return "\n".join(f"- {question}" for question in questions)

    def parse_prompt(self, answer: str) -> PromptAnswer:
        """Parse what `format_prompt` writes; raises ParseError."""
        prompt, listed, relations = _marked_lines(answer, ("Prompt", "Concepts", "Relations"))
        concepts = tuple(part.strip() for part in listed.split(";"))
        if not all(concepts):
            raise ParseError(UNPARSABLE, answer, "a concept is empty")
        return PromptAnswer(_plain(prompt), concepts, _relations(relations, answer))

    def parse_perturbation(self, answer: str) -> str:
        """Parse what `format_perturbation` writes; raises ParseError."""
        return _plain(_marked_lines(answer, ("Changed",))[0])

    def parse_dense(self, answer: str) -> tuple[str, str]:
        """Parse what `format_dense` writes; raises ParseError."""
        first, second = _marked_lines(answer, ("First", "Second"))
        return first, second

    def parse_questions(self, answer: str) -> list[str]:
        """Parse one question per line, with or without a dash or number before it; raises ParseError."""
        lines = [_BULLET.sub("", line, count=1).strip() for line in answer.splitlines() if line.strip()]
        if not lines or not all(line.endswith("?") and len(line) > 1 for line in lines):
            raise ParseError(UNPARSABLE, answer, "no questions, or a line that is not a question")
        return list(dict.fromkeys(lines))
