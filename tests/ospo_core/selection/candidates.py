"""Candidates written briefly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ospo_core.schema import Side
from ospo_core.selection import image_score
from tests.support.simple_rules import Candidate

BASE, NEGATIVE = Side.BASE, Side.NEGATIVE


def image(
    variant: int,
    side: Side,
    answers: Sequence[float],
    logprob: float = -3.0,
    negatives: Sequence[float] = (-3.0, -3.0, -3.0),
    about: Mapping[int, Sequence[float]] | None = None,
) -> Candidate:
    """Return a candidate whose score is the mean of its answers; `about` are answers to the negatives' questions."""
    return Candidate(
        variant=variant,
        side=side,
        answers=tuple(answers),
        score=image_score(answers),
        logprob_base=logprob,
        logprob_negatives=tuple(negatives),
        negative_answers={key: tuple(value) for key, value in (about or {}).items()},
    )
