"""What a model writes, before a round pays for it: a few answers per sub-category and task, read and checked.

The shares are those of first answers, as in a round: nothing is asked for again. Whether an answer is valid is decided
by simple rules about its words. They are stricter than what a round drops, and show what to look at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ospo_core.artifacts.ids import derive_seed
from ospo_core.config import RoundConfig
from ospo_core.engines.base import TextEngine
from ospo_core.prompts.failures import printable
from ospo_core.prompts.families import AnswerKind, Chat, ParseError, PromptAnswer, PromptFamily
from ospo_core.prompts.filters import (
    TOO_MANY_QUESTIONS,
    UNREADABLE,
    ContaminationCheck,
    dense_problem,
    normalise,
    number_above_four,
    perturbation_problem,
)
from ospo_core.prompts.generation import Instruction, Sampling, whole_answer
from ospo_core.prompts.writing import ExamplePool
from ospo_core.schema import PERTURBATIONS, PerturbationKind, SubCategory

# What the probe finds wrong besides the reasons for which a round drops an answer.
CONCEPT_NOT_IN_PROMPT = "concept_not_in_prompt"
CHANGES_TOO_MUCH = "changes_too_much"
"""A replacement of more than half of the words, a swap with other words, or a drop that adds words."""
OMITS_DETAILS = "omits_details"
"""A dense prompt or the questions leave out more than a quarter of what the prompt names."""
ASKS_ABOUT_OTHER_THINGS = "asks_about_other_things"
"""A question without any word of the prompt."""

EXAMPLES = 5
"""Raw answers shown per failure."""
STATED = 0.75
"""Share of a prompt's words that a dense prompt and the questions have to mention."""
_STEM = 4
"""Letters by which words are compared: `folds` and `folding` are the same."""
_FUNCTION_WORDS = frozenset({"a", "an", "and", "at", "in", "is", "it", "its", "of", "on", "that", "the", "to", "with"})

_Value = TypeVar("_Value")
_Edit = tuple[str, str]
"""A prompt and its perturbed prompt."""


@dataclass
class Probe:
    """The answers of one sub-category to one task.

    Args:
        sub_category: what the prompts are about.
        task: `prompt`, a kind of perturbation, `dense` or `questions`.
        answers: answers asked for; fewer than wanted if the task before gave too few prompts.
        parsed: answers that have the expected form.
        distinct: different ones among those.
        valid: parsed answers with which no rule finds a fault.
        failures: other answers, by the first reason found.
        examples: up to `EXAMPLES` raw answers by reason, each in one line.
    """

    sub_category: SubCategory
    task: str
    answers: int = 0
    parsed: int = 0
    distinct: int = 0
    valid: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def fail(self, reason: str, answer: str) -> None:
        """Count an answer that failed, and keep it if it is one of the first."""
        self.failures[reason] = self.failures.get(reason, 0) + 1
        shown = self.examples.setdefault(reason, [])
        if len(shown) < EXAMPLES:
            shown.append(printable(answer))

    def share(self, count: int) -> float:
        """Return a number of answers as a share of all."""
        return count / self.answers if self.answers else 0.0


def probe(
    engine: TextEngine,
    family: PromptFamily,
    config: RoundConfig,
    answers: int,
    contamination: ContaminationCheck | None = None,
) -> Iterator[Probe]:
    """Yield what the model writes for each sub-category of the quotas, task by task.

    Every task is about what the tasks before it wrote; where that is nothing, prompts are the family's own examples.

    Args:
        engine: with the model to look at.
        family: how it is spoken to.
        config: quotas, sampling options and seed of the round to come.
        answers: answers per sub-category and task.
        contamination: evaluation prompts that a prompt must not repeat.
    """
    for sub_category in SubCategory:
        if config.prompts.quotas.get(sub_category, 0):
            yield from _Prober(engine, family, config, answers, sub_category).run(contamination or ContaminationCheck())


@dataclass(frozen=True)
class _Prober:
    """The tasks of one sub-category."""

    engine: TextEngine
    family: PromptFamily
    config: RoundConfig
    answers: int
    sub_category: SubCategory

    def run(self, contamination: ContaminationCheck) -> Iterator[Probe]:
        """Yield the result of each task."""
        written, found = self._prompts(contamination)
        yield written
        prompts = list(dict.fromkeys(answer.prompt for answer in found))
        prompts = prompts or [seed.prompt for seed in self.family.seed_examples(self.sub_category)]
        edits: list[_Edit] = []
        for kind in dict.fromkeys(PERTURBATIONS[self.sub_category]):
            changed, made = self._perturbations(kind, prompts)
            yield changed
            edits += made
        edits.sort(key=lambda edit: derive_seed(self.config.seed, *edit))  # every kind among the first
        if self.config.perturbations.densify:
            yield self._dense(edits[: self.answers])
        texts = list(dict.fromkeys(text for edit in edits for text in edit)) or prompts
        yield self._questions(texts[: self.answers])

    def _prompts(self, contamination: ContaminationCheck) -> tuple[Probe, list[PromptAnswer]]:
        config = self.config.prompts
        size = config.examples_complex if self.sub_category is SubCategory.COMPLEX else config.examples
        seed = derive_seed(self.config.seed, "probe")
        pool = ExamplePool(self.family, self.sub_category, size, seed, redraw_every=max(1, self.answers // 8))
        chats = [self.family.write_prompt(self.sub_category, pool.at(call, ())) for call in range(self.answers)]

        def problem(number: int, answer: PromptAnswer) -> str | None:
            return number_above_four(answer.prompt) or contamination(answer.prompt) or _concept_problem(answer)

        sampling = self._sampling(config.temperature, config.max_tokens, config.top_p, AnswerKind.PROMPT)
        result, found = self._ask("prompt", chats, sampling, self.family.parse_prompt, problem, _prompt_of)
        return result, [answer for answer in found if answer is not None]

    def _perturbations(self, kind: PerturbationKind, prompts: Sequence[str]) -> tuple[Probe, list[_Edit]]:
        config = self.config.perturbations
        chats = [self.family.perturb(kind, prompt, self.sub_category) for prompt in prompts]
        sampling = self._sampling(config.temperature, config.max_tokens, config.top_p, AnswerKind.PERTURBATION)
        result, found = self._ask(
            kind.value,
            chats,
            sampling,
            self.family.parse_perturbation,
            lambda number, negative: edit_problem(kind, prompts[number], negative),
            str,
        )
        return result, [(base, made) for base, made in zip(prompts, found, strict=True) if made is not None]

    def _dense(self, edits: Sequence[_Edit]) -> Probe:
        config = self.config.perturbations
        chats = [self.family.densify(*edit, self.sub_category) for edit in edits]
        sampling = self._sampling(config.dense_temperature, config.max_tokens, config.dense_top_p, AnswerKind.DENSE)
        parse = self.family.parse_dense
        return self._ask("dense", chats, sampling, parse, lambda n, pair: pair_problem(edits[n], pair), " ".join)[0]

    def _questions(self, prompts: Sequence[str]) -> Probe:
        config = self.config.questions
        chats = [self.family.decompose(prompt, self.sub_category) for prompt in prompts]

        def problem(number: int, questions: list[str]) -> str | None:
            too_many = len(questions) > config.max_questions
            return TOO_MANY_QUESTIONS if too_many else questions_problem(prompts[number], questions)

        sampling = self._sampling(config.temperature, config.max_tokens, config.top_p, AnswerKind.QUESTIONS)
        return self._ask("questions", chats, sampling, self.family.parse_questions, problem, " ".join)[0]

    def _sampling(self, temperature: float, max_tokens: int, top_p: float, kind: AnswerKind) -> Sampling:
        return Sampling(derive_seed(self.config.seed, "probe"), temperature, max_tokens, 1, top_p, kind)

    def _ask(
        self,
        task: str,
        chats: Sequence[Chat],
        sampling: Sampling,
        parse: Callable[[str], _Value],
        problem: Callable[[int, _Value], str | None],
        text_of: Callable[[Any], str],
    ) -> tuple[Probe, list[_Value | None]]:
        """Return the result of one task, and its valid values; None for each of the other answers.

        `problem` is given the number of a chat and the parsed answer; `text_of` gives what makes an answer distinct.
        """
        result, values, seen = Probe(self.sub_category, task, answers=len(chats)), list[_Value | None](), set[str]()
        instructions = [Instruction((self.sub_category.value, task, n), chat) for n, chat in enumerate(chats)]
        requests = [sampling.request(self.family, instruction) for instruction in instructions]
        completions = self.engine.generate(requests) if requests else []
        for number, (chat, completion) in enumerate(zip(chats, completions, strict=True)):
            values.append(None)
            try:
                value = parse(whole_answer(chat, completion))
            except ParseError as error:
                result.fail(error.reason, error.answer)
                continue
            seen.add(normalise(text_of(value)))
            if reason := problem(number, value):
                result.fail(reason, chat.answer(completion.text))
            else:
                values[number] = value
        unread = sum(count for reason, count in result.failures.items() if reason in UNREADABLE)
        result.parsed, result.distinct = len(chats) - unread, len(seen)
        result.valid = len(chats) - sum(result.failures.values())
        return result, values


def edit_problem(kind: PerturbationKind, base: str, negative: str) -> str | None:
    """Return why a perturbed prompt is not the base with one detail changed in the way of its kind."""
    if reason := perturbation_problem(negative, base, ()):
        return reason
    before, after = (
        Counter("a" if word == "an" else word for word in normalise(text).split()) for text in (base, negative)
    )
    if kind is PerturbationKind.SWAP:
        fits = before == after
    elif kind is PerturbationKind.DROP:
        fits = after <= before
    else:
        fits = 2 * (before & after).total() >= before.total() and after.total() <= before.total() + 3
    return None if fits else CHANGES_TOO_MUCH


def pair_problem(edit: _Edit, pair: tuple[str, str]) -> str | None:
    """Return why two dense prompts do not state what the prompt and its perturbed prompt say."""
    if reason := dense_problem(*pair) or number_above_four(pair[0]) or number_above_four(pair[1]):
        return reason
    stated = all(_stated(short, long) >= STATED for short, long in zip(edit, pair, strict=True))
    return None if stated else OMITS_DETAILS


def questions_problem(prompt: str, questions: Sequence[str]) -> str | None:
    """Return why questions do not check what a prompt says."""
    stems = _stems(prompt)
    if not all(question.endswith("?") and _stems(question) & stems for question in questions):
        return ASKS_ABOUT_OTHER_THINGS
    return None if _stated(prompt, " ".join(questions)) >= STATED else OMITS_DETAILS


def _concept_problem(answer: PromptAnswer) -> str | None:
    """Return CONCEPT_NOT_IN_PROMPT if a concept has a word that the prompt does not contain."""
    stems = _stems(answer.prompt)
    return None if all(_stems(concept) <= stems for concept in answer.concepts) else CONCEPT_NOT_IN_PROMPT


def _prompt_of(answer: PromptAnswer) -> str:
    return answer.prompt


def _stems(text: str) -> set[str]:
    """Return the first letters of the words that name something."""
    return {word[:_STEM] for word in normalise(text).split() if word not in _FUNCTION_WORDS}


def _stated(prompt: str, text: str) -> float:
    """Return the share of what a prompt names that a text names too."""
    wanted = _stems(prompt)
    return len(wanted & _stems(text)) / len(wanted) if wanted else 1.0
