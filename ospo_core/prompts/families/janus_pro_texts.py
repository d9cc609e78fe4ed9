"""The English texts for Janus-Pro: instructions and few-shot examples, read from a data file per task.

Instructions are templates for `str.format`. All texts were written for this project; no example comes from a benchmark
(docs/method.md, trap 10).
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Generic, TypeVar

import yaml

from ospo_core.config.sections import Section
from ospo_core.prompts.families.base import PromptAnswer
from ospo_core.schema import PerturbationKind, SubCategory

SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language.\n\n"
)
"""The system prompt that Janus was trained with for understanding and text (JanusProcessor of transformers)."""

VQA = "{question} Answer with yes or no."

_Examples = TypeVar("_Examples")


class PromptTask(Section):
    """What prompts of a sub-category describe, and hand-written ones: the first few-shot examples."""

    task: str
    examples: tuple[PromptAnswer, ...]


class PromptTexts(Section):
    """Writing prompts: the instruction (`{task}`), how it is repeated, and each sub-category's task and examples."""

    instruction: str
    again: str
    sub_categories: dict[SubCategory, PromptTask]


class Edit(Section):
    """A prompt, what changes, and the changed prompt."""

    base: str
    change: str
    changed: str


class DensePair(Section):
    """A prompt and its changed prompt, and a long description of each."""

    base: str
    changed: str
    first: str
    second: str


class Decomposition(Section):
    """A prompt and its yes/no questions."""

    prompt: str
    questions: tuple[str, ...]


class ExampleFamily(Section, Generic[_Examples]):
    """Sub-categories that share few-shot examples."""

    sub_categories: tuple[SubCategory, ...]
    examples: _Examples


class TaskTexts(Section, Generic[_Examples]):
    """An instruction, and families of sub-categories with their examples; every sub-category is in one family."""

    instruction: str
    families: dict[str, ExampleFamily[_Examples]]

    def examples_for(self, sub_category: SubCategory) -> _Examples:
        """Return the examples of the family that a sub-category belongs to."""
        return next(family.examples for family in self.families.values() if sub_category in family.sub_categories)


class PerturbationTexts(TaskTexts[dict[PerturbationKind, tuple[Edit, ...]]]):
    """Changing a detail: the instruction (`{task}`, `{edit}`), what each kind does, and examples by kind."""

    edits: dict[PerturbationKind, str]


DensificationTexts = TaskTexts[tuple[DensePair, ...]]
QuestionTexts = TaskTexts[tuple[Decomposition, ...]]


@cache
def prompt_texts() -> PromptTexts:
    """Return the texts for writing prompts."""
    return PromptTexts.model_validate(_read("prompts"))


@cache
def perturbation_texts() -> PerturbationTexts:
    """Return the texts for changing a detail."""
    return PerturbationTexts.model_validate(_read("perturbations"))


@cache
def densification_texts() -> DensificationTexts:
    """Return the texts for expanding prompts."""
    return DensificationTexts.model_validate(_read("densification"))


@cache
def question_texts() -> QuestionTexts:
    """Return the texts for splitting prompts into questions."""
    return QuestionTexts.model_validate(_read("questions"))


def _read(task: str) -> object:
    """Return the content of a task's data file."""
    return yaml.safe_load(
        files("ospo_core.prompts.families").joinpath(f"janus_pro_data/{task}.yaml").read_text("utf-8")
    )
