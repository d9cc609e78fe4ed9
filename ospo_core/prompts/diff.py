"""What a perturbation changed, word by word, for the report and for people."""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import Literal, NamedTuple

Op = Literal["same", "removed", "added"]


class Change(NamedTuple):
    """A run of neighbouring words that both texts have, or that only the first or only the second has."""

    op: Op
    words: str


def changed_words(a: str, b: str) -> list[Change]:
    """Return how text `a` becomes text `b`: runs of words in order, what is removed before what is added.

    The words of `same` and `removed` are those of `a`, the words of `same` and `added` those of `b`.
    """
    first, second = a.split(), b.split()
    changes: list[Change] = []
    for tag, i, j, k, end in SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        if tag == "equal":
            changes.append(Change("same", " ".join(first[i:j])))
            continue
        if j > i:
            changes.append(Change("removed", " ".join(first[i:j])))
        if end > k:
            changes.append(Change("added", " ".join(second[k:end])))
    return changes
