"""Questions of the shapes world parsed from text: the inverse of `Question.text`, for tests."""

from __future__ import annotations

from ospo_core.shapes.grammar import NUMBERS, RELATIONS, SIDES, GrammarError, PhraseReader
from ospo_core.shapes.oracle import Question


def parse_question(text: str) -> Question:
    """Parse a question.

    Raises:
        GrammarError: the text is not a question of this world.
    """
    words = text.split()
    if words[-1:] != ["?"]:
        raise GrammarError("a question ends with '?'")
    words = words[:-1]
    if words[:2] in (["is", "there"], ["are", "there"]):
        rest = words[2:]
        if rest[1:] in (["object"], ["objects"]) and rest[0] in NUMBERS:
            return Question(count=NUMBERS.index(rest[0]))
        reader = PhraseReader(rest)
        noun = reader.noun()
        question = Question(noun, noun.count)
    elif words[:2] == ["is", "the"]:
        reader = PhraseReader(words[2:])
        question = _read_placement(reader)
    else:
        raise GrammarError(f"unknown form of question {' '.join(words[:2])!r}")
    if reader.left:
        raise GrammarError(f"unexpected word {reader.left[0]!r}")
    return question


def _read_placement(reader: PhraseReader) -> Question:
    """Parse what follows `is the`: a description, then a side or a relation to another thing."""
    noun = reader.description()
    side = reader.one_of(SIDES)
    if side:
        return Question(noun, side=side)
    relation = reader.one_of(RELATIONS)
    if relation is None or reader.one_of(("the",)) is None:
        raise GrammarError("expected a relation and 'the'")
    return Question(noun, relation=relation, other=reader.description())
