"""Exact search for texts that share most of their word 3-shingles (no false hit, no miss), in time linear in the texts.

Two texts of n and n' shingles with a Jaccard similarity of at least t differ in few shingles: at most
`d = (n + n') (1 - t) / (1 + t)` are in one of them only. A text is therefore listed under a few keys, and one that is
similar to it shares a key:

- *by parts*: every shingle falls, by its hash, into one of `d + 1` parts. At least one part is the same in both texts.
  A part of several shingles is rare even where the words are few, so hardly any text is looked at in vain.
- *by shingles*, where the parts would be too small, as for low thresholds: the other text lacks at most
  `n - ceil(t n)` of the n shingles, so it has one of any `n - ceil(t n) + 1`; the rarest so far are taken.

Keys are hashes. What shares a key is compared word by word, so that neither equal hashes nor the hashes of this very
process change an answer.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import NamedTuple, TypeAlias

SHINGLE = 3
FEW_WORDS = 5
"""A text of at most this many words has too few shingles to compare; it is only ever equal to another."""

_ROUNDING = 1e-9
_SHINGLES_A_PART = 4
"""Fewer than this many shingles a part, on average, would often be none or a common one."""
_NO_PARTS = 0.5
"""Up to this threshold so many shingles may differ that no text is cut into parts."""

Shingles: TypeAlias = "frozenset[tuple[str, ...]]"


def shingles(text: str) -> Shingles:
    """Return the set of runs of three neighbouring words of a text; empty for a text of few words."""
    words = text.split()
    return frozenset(_runs(words)) if len(words) > FEW_WORDS else frozenset()


def hashes_of(text: str) -> Collection[int]:
    """Return the hashes of a text's shingles, one for each shingle."""
    words = text.split()
    if len(words) <= FEW_WORDS:
        return ()
    hashes = set(map(hash, _runs(words)))
    if len(hashes) < len(words) - SHINGLE + 1:  # a shingle comes twice, or two different ones have one hash
        return [hash(shingle) for shingle in shingles(text)]
    return hashes


def _runs(words: list[str]) -> Iterable[tuple[str, ...]]:
    """Return the runs of three neighbouring words, in order."""
    return zip(words, words[1:], words[2:], strict=False)


def jaccard(first: Shingles, second: Shingles) -> float:
    """Return |A and B| / |A or B|, 0 when both are empty."""
    common = len(first & second)
    union = len(first) + len(second) - common
    return common / union if union else 0.0


class _Keys(NamedTuple):
    """Keys of a text: in how many parts it is listed itself (0: by shingles), and its keys by number of parts."""

    own: int
    by_parts: dict[int, Collection[int]]


class ShingleIndex:
    """Answers whether a text has a Jaccard similarity of at least `threshold` with one added before.

    Args:
        threshold: similarity in [0, 1]; 0 finds texts with a common shingle, 1 only texts with equal shingles.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self._texts: list[str] = []
        self._listed: dict[int, list[int]] = {}
        self._layouts: dict[int, tuple[int, tuple[int, ...]]] = {}

    def has_similar(self, text: str) -> bool:
        """Return whether a text is close to one in the index."""
        return self._find(text, self._keys(text))

    def add(self, text: str) -> None:
        """Add a text; texts of few words are left out."""
        self._list(text, self._keys(text))

    def add_unless_similar(self, text: str) -> bool:
        """Add a text if none in the index is close to it; return whether that was so."""
        keys = self._keys(text)
        if self._find(text, keys):
            return False
        self._list(text, keys)
        return True

    def _keys(self, text: str) -> _Keys:
        """Return the keys of a text for each number of parts in which it or a similar text may be listed."""
        hashes = hashes_of(text)
        own, every = self._layout(len(hashes))
        return _Keys(own, {parts: part_keys(hashes, parts) if parts else hashes for parts in every})

    def _find(self, text: str, keys: _Keys) -> bool:
        """Compare with every text that shares a key, until one is close."""
        compared: set[int] = set()
        for key in (key for some in keys.by_parts.values() for key in some):
            for number in self._listed.get(key, ()):
                if number not in compared:
                    compared.add(number)
                    similarity = jaccard(shingles(text), shingles(self._texts[number]))
                    if similarity > 0 and similarity >= self.threshold:
                        return True
        return False

    def _list(self, text: str, keys: _Keys) -> None:
        """List a text under its keys."""
        own = keys.by_parts[keys.own]
        for key in own if keys.own else self._rarest(own):
            self._listed.setdefault(key, []).append(len(self._texts))
        self._texts.append(text)

    def _rarest(self, hashes: Collection[int]) -> list[int]:
        """Return as many shingles as a similar text cannot all lack, those with the fewest texts first."""
        count = len(hashes) - math.ceil(self.threshold * len(hashes) - _ROUNDING) + 1
        return sorted(hashes, key=lambda key: len(self._listed.get(key, ())))[:count]

    def _layout(self, size: int) -> tuple[int, tuple[int, ...]]:
        """Return in how many parts a text of `size` shingles is listed, and texts similar to it; 0 is by shingles."""
        if size not in self._layouts:
            partners = self._sizes_of_similar(size)
            self._layouts[size] = self._parts(size), tuple(sorted({self._parts(partner) for partner in partners}))
        return self._layouts[size]

    def _sizes_of_similar(self, size: int) -> Iterable[int]:
        """Return the sizes of texts similar to one of `size` shingles; one will do where nothing is cut into parts."""
        if self.threshold <= _NO_PARTS:
            return (size,)
        return range(math.ceil(self.threshold * size - _ROUNDING), math.floor(size / self.threshold + _ROUNDING) + 1)

    def _parts(self, size: int) -> int:
        """Return in how many parts the shingles of a text of this size are cut, 0 where they would be too small."""
        if self.threshold <= _NO_PARTS:
            return 0
        largest = math.floor(size / self.threshold + _ROUNDING)
        differing = math.floor((size + largest) * (1 - self.threshold) / (1 + self.threshold) + _ROUNDING)
        return differing + 1 if size >= _SHINGLES_A_PART * (differing + 1) else 0


def part_keys(hashes: Collection[int], parts: int) -> list[int]:
    """Return one key a part for shingles cut into `parts`; it depends on which shingles are in the part alone."""
    sums = [0] * parts
    for key in hashes:
        sums[key % parts] += key
    return [hash((parts, place, total)) for place, total in enumerate(sums)]
