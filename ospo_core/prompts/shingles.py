"""Exact search for texts that share most of their word 3-shingles, by prefix filtering (no false hit, no miss)."""

from __future__ import annotations

import hashlib
import math

SHINGLE = 3
FEW_WORDS = 5
"""A text of at most this many words has too few shingles to compare; it is only ever equal to another."""

_ROUNDING = 1e-9


def shingles(words: list[str]) -> frozenset[tuple[str, ...]]:
    """Return the set of runs of three neighbouring words; empty for a text of few words."""
    if len(words) <= FEW_WORDS:
        return frozenset()
    return frozenset(tuple(words[start : start + SHINGLE]) for start in range(len(words) - SHINGLE + 1))


def jaccard(first: frozenset[tuple[str, ...]], second: frozenset[tuple[str, ...]]) -> float:
    """Return |A and B| / |A or B|, 0 when both are empty."""
    union = len(first | second)
    return len(first & second) / union if union else 0.0


def _order(shingle: tuple[str, ...]) -> bytes:
    """Return a fixed pseudo-random sort key, so that common shingles do not crowd the prefixes."""
    return hashlib.blake2b(" ".join(shingle).encode(), digest_size=8).digest()


class ShingleIndex:
    """Answers whether a text has a Jaccard similarity of at least `threshold` with one added before.

    Two sets A, B of that similarity share at least `threshold x |A|` elements, so, both sorted by one order, they
    share one within their first `|A| - ceil(threshold |A|) + 1` elements; only those are indexed.

    Args:
        threshold: similarity in (0, 1]; 1 finds only texts with equal shingles.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self._sets: list[frozenset[tuple[str, ...]]] = []
        self._by_shingle: dict[tuple[str, ...], list[int]] = {}

    def _prefix(self, items: frozenset[tuple[str, ...]]) -> list[tuple[str, ...]]:
        """Return the shingles of `items` that are looked up and indexed."""
        length = len(items) - math.ceil(self.threshold * len(items) - _ROUNDING) + 1
        return sorted(items, key=_order)[: max(0, length)]

    def has_similar(self, words: list[str]) -> bool:
        """Return whether a text of these words is close to one in the index."""
        items = shingles(words)
        near = {index for shingle in self._prefix(items) for index in self._by_shingle.get(shingle, ())}
        return any(jaccard(items, self._sets[index]) >= self.threshold for index in near)

    def add(self, words: list[str]) -> None:
        """Add a text; texts of few words are left out."""
        items = shingles(words)
        for shingle in self._prefix(items) if items else ():
            self._by_shingle.setdefault(shingle, []).append(len(self._sets))
        self._sets.append(items)
