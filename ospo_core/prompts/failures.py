"""Why a model's answers were dropped, for messages: the commonest reasons and one raw answer; and when to stop."""

from __future__ import annotations

from collections.abc import Mapping

from ospo_core.errors import StageError
from ospo_core.prompts.filters import SURPLUS, UNREADABLE

LONGEST = 400
"""Characters of a raw answer that are kept."""
MOST = 4
"""Reasons that a message names."""
FEWEST_ANSWERS = 16
"""With fewer answers, the share that has the expected form says little about a model."""


def printable(answer: str, longest: int = LONGEST) -> str:
    r"""Return an answer in one line of at most about `longest` characters, control characters escaped (`\n`).

    What exceeds the length is cut out of the middle, since the form of an answer shows at its start and its end.
    """
    if len(answer) > longest:
        half = longest // 2
        answer = f"{answer[:half]} [... {len(answer) - 2 * half} characters ...] {answer[-half:]}"
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in answer)


def describe_drops(drops: Mapping[str, int], raw: Mapping[str, str]) -> str:
    """Return the commonest reasons with their counts and one raw answer, e.g. `12 unparsable, 3 truncated; ...`.

    Args:
        drops: number of answers by reason.
        raw: one raw answer by reason, where one is known.
    """
    ranked = sorted((-count, reason) for reason, count in drops.items() if count and reason != SURPLUS)
    if not ranked:
        return "no answer was dropped"
    named = ", ".join(f"{-count} {reason}" for count, reason in ranked[:MOST])
    rest = sum(-count for count, _ in ranked[MOST:])
    text = f"dropped: {named}" + (f", {rest} for other reasons" if rest else "")
    shown = next((reason for _, reason in ranked if reason in raw), None)
    return f'{text}; {shown}, for example: "{printable(raw[shown])}"' if shown is not None else text


def check_parsed(task: str, answers: int, drops: Mapping[str, int], raw: Mapping[str, str], floor: float) -> None:
    """Check that enough answers of a first pass have the expected form, before retries are paid for.

    Args:
        task: what was asked for.
        answers: number of answers read.
        drops: number of answers dropped, by reason; only reasons about their form count.
        raw: one raw answer by reason.
        floor: the least share of answers that must have the form (`engine.min_parsed`).

    Raises:
        StageError: there are fewer; the message has the commonest reasons and one raw answer.
    """
    parsed = answers - sum(count for reason, count in drops.items() if reason in UNREADABLE)
    if answers >= FEWEST_ANSWERS and parsed < floor * answers:
        raise StageError(
            f"only {parsed} of the first {answers} answers ({task}) have the expected form; "
            f"{describe_drops(drops, raw)}",
            field="engine.min_parsed",
            value=floor,
            remedy="See `ospo probe`; check that model.family fits the model; a lower value lets the round go on",
        )
