"""The filters of written prompts as their definition says it: every pair of texts is compared, shingle by shingle."""

from __future__ import annotations

import re
import unicodedata

from ospo_core.prompts.filters import DUPLICATE, NEAR_DUPLICATE


def normalised(prompt: str) -> str:
    text = re.sub(r"['\u2019]", "", unicodedata.normalize("NFKC", prompt).casefold())
    return re.sub(r"[\W_]+", " ", text).strip()


def shingle_set(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[at : at + 3]) for at in range(len(words) - 2)} if len(words) > 5 else set()


def are_near(first: str, second: str, threshold: float) -> bool:
    """Whether two normalised texts share a shingle and their Jaccard similarity reaches the threshold."""
    left, right = shingle_set(first), shingle_set(second)
    return bool(left & right) and len(left & right) / len(left | right) >= threshold


class SimpleDeduplicator:
    """What `Deduplicator` must decide."""

    def __init__(self, similarity: float) -> None:
        self.similarity, self.kept = similarity, list[str]()

    def __call__(self, prompt: str) -> str | None:
        text = normalised(prompt)
        if text in self.kept:
            return DUPLICATE
        if self.similarity < 1 and any(are_near(text, other, self.similarity) for other in self.kept):
            return NEAR_DUPLICATE
        self.kept.append(text)
        return None
