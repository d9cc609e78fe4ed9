"""What a model's text answers mean: the parsed answer, and the error that says why one could not be parsed."""

from __future__ import annotations

from dataclasses import dataclass

from ospo_core.errors import OspoError

Relation = tuple[str, str, str]
"""Subject, relation, object, e.g. `("red circle", "above", "blue square")`."""

UNPARSABLE = "unparsable"
EQUAL_TO_BASE = "equal_to_base"


@dataclass(frozen=True)
class PromptAnswer:
    """A prompt with what it talks about (OSPO, section 3.1).

    Args:
        prompt: one sentence that describes a picture.
        concepts: the objects with their attributes, e.g. `("red circle", "blue square")`.
        relations: the relations between concepts; empty where the prompt states none.
    """

    prompt: str
    concepts: tuple[str, ...]
    relations: tuple[Relation, ...] = ()


class ParseError(OspoError):
    """An answer that does not have the expected form; it is dropped and counted, never trained on.

    Args:
        reason: the name under which the drop is counted.
        answer: the answer as the model wrote it.
        detail: what is missing or too much in it.
    """

    def __init__(self, reason: str, answer: str = "", detail: str = "the answer lacks its form") -> None:
        super().__init__(detail, field=reason, value=answer, remedy="Answers like this are dropped and asked for again")
        self.reason = reason
