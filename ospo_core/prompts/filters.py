"""Filters of generated text: each returns `None`, or the reason for dropping the text (OSPO, section 3.1)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from ospo_core.prompts.shingles import ShingleIndex, few_hashes_of, hashes_of

# The reasons for which a text stage drops an answer; they are the keys of `drops` in its manifest.
UNPARSABLE = "unparsable"
NOT_TEXT = "not_text"
"""Control characters, lone surrogates, or bytes that are not UTF-8."""
MISSING_LINE = "missing_line"
"""A labelled line is missing, or out of order."""
STRAY_TEXT = "stray_text"
"""Text that may or may not belong to the answer."""
NO_PROMPT = "no_prompt"
"""Empty, or a placeholder, or a question where a prompt should be."""
UNCLEAR_CONCEPTS = "unclear_concepts"
UNCLEAR_RELATIONS = "unclear_relations"
NO_QUESTIONS = "no_questions"
NOT_YES_NO = "not_yes_no"
"""A question that cannot be answered with yes, or that the model itself answered with no."""
EQUAL_TO_BASE = "equal_to_base"
DUPLICATE = "duplicate"
NEAR_DUPLICATE = "near_duplicate"
NUMBER_ABOVE_FOUR = "number_above_four"
CONTAMINATED = "contaminated"
SAME_AS_EARLIER_VARIANT = "same_as_earlier_variant"
DENSE_EQUAL = "dense_equal"
TRUNCATED = "truncated"
TOO_MANY_QUESTIONS = "too_many_questions"
SURPLUS = "surplus"
"""An answer generated in the same pass as the one that met the quota."""

UNREADABLE = frozenset(
    {UNPARSABLE, NOT_TEXT, MISSING_LINE, STRAY_TEXT, NO_PROMPT, UNCLEAR_CONCEPTS, UNCLEAR_RELATIONS}
    | {NO_QUESTIONS, NOT_YES_NO, TRUNCATED}
)
"""The reasons that are about the form of an answer; the others are about what it says."""

CONTAMINATION_SIMILARITY = 0.9
"""Jaccard similarity of word 3-shingles at which a prompt counts as copied from an evaluation list.

At 0.9, changing one word in a prompt of up to 20 words makes it a different prompt.
"""

_SMALL_NUMBERS = frozenset({"zero", "one", "two", "three", "four"})
_LARGE_NUMBERS = frozenset(
    {"five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen"}
    | {"seventeen", "eighteen", "nineteen", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty"}
    | {"ninety", "hundred", "hundreds", "thousand", "thousands", "million", "millions", "dozen", "dozens"}
)
_WORD = re.compile(r"[^\W_]+")
_ASCII_WORDS = str.maketrans(
    {code: chr(code).lower() if chr(code).isalnum() else None if chr(code) == "'" else " " for code in range(128)}
)
_EDGES = ".,;:!?\"'()[]"


def normalise(prompt: str) -> str:
    """Return the text in lower case and one Unicode form, without punctuation, with single spaces between words."""
    if prompt.isascii():  # same result, several times faster
        return " ".join(prompt.translate(_ASCII_WORDS).split())
    text = unicodedata.normalize("NFKC", prompt).casefold()
    return " ".join(_WORD.findall(text.replace("'", "").replace("\u2019", "")))


def _above_four(word: str) -> bool:
    """Return whether a word is a number above four; `twenty-five` is one, `five-pointed` is not."""
    digits = word.replace(",", "")
    if digits.isdecimal():
        return any(map(int, digits[:-1])) or int(digits[-1]) > 4  # Python reads no number of thousands of digits
    parts = word.split("-")
    return all(part in _LARGE_NUMBERS | _SMALL_NUMBERS for part in parts) and any(
        part in _LARGE_NUMBERS for part in parts
    )


def number_above_four(prompt: str) -> str | None:
    """Return NUMBER_ABOVE_FOUR if a prompt contains a number above four, in words or digits."""
    words = (word.strip(_EDGES) for word in prompt.casefold().split())
    return NUMBER_ABOVE_FOUR if any(word and _above_four(word) for word in words) else None


def same_meaning(first: str, second: str) -> bool:
    """Return whether two prompts mean the same: equal words, or the same parts around `and` in another order."""
    return sorted(normalise(first).split(" and ")) == sorted(normalise(second).split(" and "))


def perturbation_problem(negative: str, base: str, earlier: Iterable[str]) -> str | None:
    """Return why a perturbed prompt is unusable: same meaning as its base or an earlier variant, or a large number."""
    if same_meaning(negative, base):
        return EQUAL_TO_BASE
    if any(same_meaning(negative, text) for text in earlier):
        return SAME_AS_EARLIER_VARIANT
    return number_above_four(negative)


def dense_problem(dense: str, dense_negative: str) -> str | None:
    """Return DENSE_EQUAL if two dense prompts have the same words: nothing would distinguish their images."""
    return DENSE_EQUAL if normalise(dense) == normalise(dense_negative) else None


class Deduplicator:
    """Keeps the first of several texts that are equal (after normalisation) or nearly so.

    Args:
        similarity: Jaccard similarity of word 3-shingles at which two texts count as near duplicates; 1 turns the
            near check off. Texts of at most five words are only compared for equality.
        taken: texts that exist already.
        earlier: a deduplicator whose texts exist already; it is only read, so several can share it.
    """

    def __init__(self, similarity: float = 1.0, taken: Iterable[str] = (), earlier: Deduplicator | None = None) -> None:
        self._earlier = earlier
        self._exact: set[str] = set()
        self._near = ShingleIndex(similarity) if similarity < 1 else None
        for prompt in taken:
            self.add(prompt)

    def check(self, prompt: str) -> str | None:
        """Return DUPLICATE, NEAR_DUPLICATE or None, without keeping the text."""
        return self._problem(normalise(prompt))

    def add(self, prompt: str) -> None:
        """Keep a text; later ones are compared with it."""
        text = normalise(prompt)
        if text not in self._exact and self._near is not None:
            self._near.add(text)
        self._exact.add(text)

    def __call__(self, prompt: str) -> str | None:
        """Return the reason to drop the text; if there is none, keep it and return None."""
        text = normalise(prompt)
        known = self._known(text)
        if known is not None:
            return known
        if self._near is not None and not self._near.add_unless_similar(text):
            return NEAR_DUPLICATE
        self._exact.add(text)
        return None

    def _known(self, text: str) -> str | None:
        """Return why a normalised text is dropped, without the near check among this one's own texts."""
        reason = self._earlier._problem(text) if self._earlier is not None else None
        return reason or (DUPLICATE if text in self._exact else None)

    def _problem(self, text: str) -> str | None:
        """Return why a normalised text is dropped, or None."""
        known = self._known(text)
        if known is not None:
            return known
        return NEAR_DUPLICATE if self._near is not None and self._near.has_similar(text) else None


class ContaminationCheck:
    """Finds prompts that are equal or nearly equal to an evaluation prompt (docs/method.md, trap 10).

    Args:
        prompts: the evaluation prompts.
        similarity: Jaccard similarity of word 3-shingles that counts as nearly equal.
    """

    def __init__(self, prompts: Iterable[str] = (), similarity: float = CONTAMINATION_SIMILARITY) -> None:
        known = list(prompts)
        self._similarity = similarity
        self._known = Deduplicator(similarity, known)
        self._shingles = {key for prompt in known for key in hashes_of(normalise(prompt))}

    def __call__(self, prompt: str) -> str | None:
        """Return CONTAMINATED or None."""
        few = few_hashes_of(normalise(prompt), self._similarity)
        if few and self._shingles.isdisjoint(few):  # most prompts, for a third of the time
            return None
        return CONTAMINATED if self._known.check(prompt) else None
