"""The parsers of the model's answers, of every family, and an answer that each of them accepts."""

from __future__ import annotations

from collections.abc import Callable

from ospo_core.prompts.families import FAMILIES, PromptFamily
from ospo_core.schema import SubCategory

TASKS = ("parse_prompt", "parse_perturbation", "parse_dense", "parse_questions")

PARSERS: dict[str, Callable[[str], object]] = {
    f"{name}.{task}": getattr(family, task) for name, family in FAMILIES.items() for task in TASKS
}
"""`FAMILY.TASK` to the method that reads an answer."""


def good_answers(family: PromptFamily) -> dict[str, str]:
    """Return an answer that each task's parser accepts."""
    example = family.seed_examples(SubCategory.COLOR_1)[0]
    return {
        "parse_prompt": family.format_prompt(example),
        "parse_perturbation": example.prompt,
        "parse_dense": family.format_dense("a red circle and a square", "a blue circle and a star"),
        "parse_questions": family.format_questions(["is there a red circle ?", "is there a square ?"]),
    }


def good_answer(parser: str) -> str:
    """Return an answer that the parser of this name in `PARSERS` accepts."""
    name, _, task = parser.partition(".")
    return good_answers(FAMILIES[name])[task]
