"""Asking for many answers at once, and again for those that could not be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ospo_core.artifacts.ids import derive_seed
from ospo_core.engines.base import Completion, Request, TextEngine
from ospo_core.prompts.answers import ParseError
from ospo_core.prompts.base_family import PromptFamily
from ospo_core.prompts.filters import TRUNCATED

RETRY_TEMPERATURE = 0.7
"""A greedy answer would only repeat itself, so that its retries are sampled at this temperature."""

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Ask:
    """One instruction with the parts of its identity, from which its seeds are derived."""

    key: tuple[str | int, ...]
    instruction: str


@dataclass(frozen=True)
class Sampling:
    """How answers are sampled: round seed, temperature, longest answer in tokens, calls allowed an instruction."""

    seed: int
    temperature: float
    max_tokens: int
    attempts: int

    def request(self, family: PromptFamily, ask: Ask, attempt: int = 0) -> Request:
        """Return the request of one attempt; its seed depends on round, key and attempt alone."""
        retried_greedy = attempt > 0 and self.temperature == 0
        return Request(
            prompt=family.chat_text(ask.instruction),
            seed=derive_seed(self.seed, *ask.key, attempt),
            temperature=RETRY_TEMPERATURE if retried_greedy else self.temperature,
            max_tokens=self.max_tokens,
            stop=family.stop,
        )


@dataclass
class Asked(Generic[_Value]):
    """What came back: a value or, where every attempt failed, the reason of the last; and the cost.

    Args:
        values: one an instruction, None where there is none.
        reasons: one an instruction, empty where there is a value.
        calls: answers asked for, retries included.
        retries: answers asked for again.
        tokens: tokens generated.
    """

    values: list[_Value | None]
    reasons: list[str]
    calls: int = 0
    retries: int = 0
    tokens: int = 0
    failures: dict[str, int] = field(default_factory=dict)


def complete_text(completion: Completion) -> str:
    """Return the text of an answer; raises ParseError(TRUNCATED) when it was cut at its limit of tokens."""
    if completion.finish == "length":
        raise ParseError(TRUNCATED, completion.text, "the answer did not end within its limit of tokens")
    return completion.text


def ask_all(
    engine: TextEngine,
    family: PromptFamily,
    asks: Sequence[Ask],
    sampling: Sampling,
    read: Callable[[int, str], _Value],
) -> Asked[_Value]:
    """Ask all instructions in one call of the engine, then only the failed ones again, until attempts are spent.

    Args:
        engine: answers the requests.
        family: chat format and stop strings.
        asks: the instructions.
        sampling: temperature, limits and seed.
        read: turns (index of the instruction, answer) into a value or raises ParseError; called in order of index.
    """
    asked: Asked[_Value] = Asked([None] * len(asks), [""] * len(asks))
    pending = list(range(len(asks)))
    for attempt in range(sampling.attempts):
        if not pending:
            break
        requests = [sampling.request(family, asks[index], attempt) for index in pending]
        completions = engine.generate(requests)
        asked.calls += len(pending)
        asked.retries += len(pending) if attempt else 0
        for index, completion in zip(pending, completions, strict=True):
            _keep(asked, index, completion, read)
        pending = [index for index in pending if asked.values[index] is None]
    return asked


def _keep(asked: Asked[_Value], index: int, completion: Completion, read: Callable[[int, str], _Value]) -> None:
    """Store what one answer says, or why it says nothing."""
    asked.tokens += completion.tokens
    try:
        asked.values[index] = read(index, complete_text(completion))
        asked.reasons[index] = ""
    except ParseError as error:
        asked.reasons[index] = error.reason
        asked.failures[error.reason] = asked.failures.get(error.reason, 0) + 1


def costs(*parts: Asked[Any]) -> dict[str, float]:
    """Add up calls, retries, tokens and failed answers by reason (`failed_<reason>`)."""
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update({"calls": part.calls, "retries": part.retries, "tokens": part.tokens})
        counts.update({f"failed_{reason}": count for reason, count in part.failures.items()})
    return {name: float(count) for name, count in counts.items()}
