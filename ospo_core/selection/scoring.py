"""From next-token probabilities of yes and no to the score of an image (method, section 3)."""

from __future__ import annotations

import math
from collections.abc import Sequence


def answer_score(p_yes: float, p_no: float) -> float:
    """Return `s_k = p(yes) - p(no)` in [-1, 1]; each `p` is already the maximum over the spellings of its word."""
    return p_yes - p_no


def image_score(answers: Sequence[float]) -> float:
    """Return `S`, the mean of the answer scores `s_k`, in [-1, 1].

    The sum is exact (`math.fsum`), so that the order of the questions changes nothing. An image that was asked
    nothing scores 0, which says neither yes nor no; the rules never use such an image.
    """
    return math.fsum(answers) / len(answers) if answers else 0.0


def is_yes(answer: float) -> bool:
    """Tell whether the model answered yes, `p(yes) > p(no)`; a tie is not a yes."""
    return answer > 0.0
