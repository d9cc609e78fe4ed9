"""Generation with retries: many instructions in one call of the engine, then only those whose answers are unusable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ospo_core.artifacts.ids import derive_seed
from ospo_core.engines.base import Completion, Request, TextEngine
from ospo_core.prompts.failures import check_parsed, printable
from ospo_core.prompts.families import AnswerKind, Chat, ParseError, PromptFamily
from ospo_core.prompts.filters import TRUNCATED

RETRY_TEMPERATURE = 0.7
"""Retries of a greedy answer are sampled at this temperature: greedy decoding would repeat the same answer."""

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Instruction:
    """One instruction to the model; its seeds are derived from `key`."""

    key: tuple[str | int, ...]
    chat: Chat


@dataclass(frozen=True)
class Sampling:
    """How answers are sampled.

    Args:
        seed: of the round.
        temperature: of the first attempt; 0 is greedy.
        max_tokens: longest answer, in tokens.
        attempts: calls allowed per instruction.
        top_p: probability of the tokens drawn from.
        kind: of the answers; the family's pattern for it goes to engines with structured output.
        min_parsed: share of the first answers that must have the expected form.
    """

    seed: int
    temperature: float
    max_tokens: int
    attempts: int
    top_p: float
    kind: AnswerKind
    min_parsed: float = 0.0

    def request(self, family: PromptFamily, instruction: Instruction, attempt: int = 0) -> Request:
        """Return the request of one attempt; its seed depends only on round, key and attempt."""
        retried_greedy = attempt > 0 and self.temperature == 0
        return Request(
            prompt=family.chat_text(instruction.chat),
            seed=derive_seed(self.seed, *instruction.key, attempt),
            temperature=RETRY_TEMPERATURE if retried_greedy else self.temperature,
            max_tokens=self.max_tokens,
            stop=family.stop(self.kind),
            top_p=self.top_p,
            regex=_after(instruction.chat.opening, family.pattern(self.kind)),
        )


@dataclass
class Answers(Generic[_Value]):
    """The parsed answers to a list of instructions, and what they cost.

    Args:
        values: one per instruction; None if every attempt failed.
        reasons: one per instruction: why the last attempt failed; empty if there is a value.
        calls: requests made, retries included.
        retries: requests made again.
        tokens: tokens generated.
        failures: reason to number of failed answers.
        raw: reason to the first answer that failed for it.
    """

    values: list[_Value | None]
    reasons: list[str]
    calls: int = 0
    retries: int = 0
    tokens: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    raw: dict[str, str] = field(default_factory=dict)


def generate_with_retries(
    engine: TextEngine,
    family: PromptFamily,
    instructions: Sequence[Instruction],
    sampling: Sampling,
    parse: Callable[[int, str], _Value],
) -> Answers[_Value]:
    """Answer all instructions in one call of the engine, then retry those that failed until no attempt is left.

    `parse` turns (index of the instruction, answer) into a value or raises ParseError; called in order of index.

    Raises:
        StageError: too few of the first answers have the expected form (`Sampling.min_parsed`).
    """
    answers: Answers[_Value] = Answers([None] * len(instructions), [""] * len(instructions))
    pending = list(range(len(instructions)))
    for attempt in range(sampling.attempts):
        if not pending:
            break
        requests = [sampling.request(family, instructions[index], attempt) for index in pending]
        completions = engine.generate(requests)
        answers.calls += len(pending)
        answers.retries += len(pending) if attempt else 0
        for index, completion in zip(pending, completions, strict=True):
            answers.tokens += completion.tokens
            try:
                answers.values[index], answers.reasons[index] = (
                    parse(index, whole_answer(instructions[index].chat, completion)),
                    "",
                )
            except ParseError as error:
                answers.reasons[index] = error.reason
                answers.failures[error.reason] += 1
                answers.raw.setdefault(error.reason, printable(error.answer))
        if not attempt:
            check_parsed(sampling.kind, answers.calls, answers.failures, answers.raw, sampling.min_parsed)
        pending = [index for index in pending if answers.values[index] is None]
    return answers


def whole_answer(chat: Chat, completion: Completion) -> str:
    """Return an answer with its opening; raises ParseError(TRUNCATED) if it was cut off at the token limit."""
    answer = chat.answer(completion.text)
    if completion.finish == "length":
        raise ParseError(TRUNCATED, answer, "the answer was cut off at its limit of tokens")
    return answer


def _after(opening: str, pattern: str | None) -> str | None:
    """Return the regular expression of what follows an opening, with which `pattern` literally begins; else None."""
    return pattern.removeprefix(opening) if pattern is not None and pattern.startswith(opening) else None


def generation_counts(*parts: Answers[Any]) -> dict[str, float]:
    """Add up calls, retries, tokens and failed answers by reason (`failed_<reason>`)."""
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update({"calls": part.calls, "retries": part.retries, "tokens": part.tokens})
        counts.update({f"failed_{reason}": count for reason, count in part.failures.items()})
    return {name: float(count) for name, count in counts.items()}
