"""T2I-CompBench: what its prompts mention, by rules in the place of its tagger (spaCy), and its scores."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from ospo_core.evaluation.benchmarks.detections import (
    RELATIONS_2D,
    RELATIONS_3D,
    Depth,
    Detection,
    best,
    distinct,
    in_depth,
    in_plane,
)

_ARTICLES = {"a", "an", "the", "its", "their", "his", "her", "one"}
_FUNCTION_WORDS = re.compile(
    r"and|or|but|with|of|on|in|at|by|to|from|under|over|above|below|beside|behind|near|next|into|onto|inside|outside|"
    r"through|against|around|between|beneath|across|along|for|while|as|is|are|was|were|be|been|being|has|have|had|it|"
    r"they|which|that|who|both|each|very|top|bottom|left|right|side|front|hidden|ready|down|up|off"
)
"""Words that end a noun phrase."""
_VERBS = re.compile(
    r"holds?|held|sits?|sat|stands?|stood|hangs?|hung|lies?|lay|leans?|rests?|covers?|contrasts?|surrounds?|"
    r"complements?|blows?|blew|carry|carries|cast|drapes?|shines?|shone|glows?|falls?|fell|fills?|decorates?|adorns?|"
    r"grows?|grew|stretch|provides?|jots?|perch|rolls?|bounces?|floats?|set|cooks?|swims?|swam|strode"
)
"""Verbs of the sentences of T2I-CompBench that have no ending by which they could be known."""
_ENDING = re.compile(r"\w+(ly|ed|ing)")
_PERSONS = {"girl", "boy", "man", "woman"}
_SAME = {"ship": "boat", "television": "tv", "goldfish": "fish", "painting": "picture"}
"""Names under which T2I-CompBench's detector knows an object; an open vocabulary needs no others."""
_NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8}
_IRREGULAR = {
    "men": "man",
    "women": "woman",
    "people": "person",
    "children": "child",
    "mice": "mouse",
    "knives": "knife",
    "geese": "goose",
    "fish": "fish",
    "sheep": "sheep",
    "shrimp": "shrimp",
    "bus": "bus",
    "glass": "glass",
    "shoes": "shoe",
    "horses": "horse",
    "vases": "vase",
    "leaves": "leaf",
    "bookshelves": "bookshelf",
    "scissors": "scissors",
    "bread": "bread",
}
LEAST = 0.5
"""T2I-CompBench sets scores of 2D relations below this to 0."""
_WEIGHT = 0.25
"""Share of one object's confidence in the score of a relation; the relation itself has the other half."""


class Relation(NamedTuple):
    """Two objects and the words between them."""

    first: str
    words: str
    second: str


class Counted(NamedTuple):
    """An object and how many of it a prompt names."""

    label: str
    number: int


def noun_phrases(prompt: str) -> list[str]:
    """Return the phrases of a prompt that name things, e.g. `a green bench` and `a blue bowl`.

    Phrases end at punctuation and at words that belong to none. Words in -ly, -ed and -ing at their end are left out,
    unless no noun would remain.
    """
    phrases: list[str] = []
    for part in re.split(r"[.,;:!?]", prompt):
        current: list[str] = []
        for word in [*part.split(), "and"]:
            plain = word.lower()
            if plain in _ARTICLES or _FUNCTION_WORDS.fullmatch(plain) or _VERBS.fullmatch(plain):
                phrases += _closed(current)
                current = [word] if plain in _ARTICLES else []
            else:
                current.append(word)
    return phrases


def _closed(words: list[str]) -> list[str]:
    """Return a phrase without adverbs and verbs at its end, if it still has a noun."""
    article, rest = ([words[0]], words[1:]) if words and words[0].lower() in _ARTICLES else ([], words)
    while len(rest) > 1 and _ENDING.fullmatch(rest[-1].lower()):
        rest = rest[:-1]
    if not rest or (not article and len(rest) == 1 and _ENDING.fullmatch(rest[0].lower())):
        return []
    return [" ".join([*article, *rest])]


def thing(phrase: str) -> str:
    """Return a phrase without its article, in lower case."""
    words = phrase.lower().split()
    return " ".join(words[1:] if words[0] in _ARTICLES else words)


def relation_of(prompt: str, known: Sequence[str]) -> Relation | None:
    """Return the relation of `known` that a prompt states, with the last thing before it and the first after it."""
    text = prompt.lower()
    for words in known:
        match = re.search(rf"\b{words}\b", text)
        if match is None:
            continue
        before, after = noun_phrases(text[: match.start()]), noun_phrases(text[match.end() :])
        if before and after:
            return Relation(_person(thing(before[-1])), words, _person(thing(after[0])))
    return None


def _person(label: str) -> str:
    return "person" if label in _PERSONS else label


def counts_of(prompt: str) -> list[Counted]:
    """Return the objects that a prompt counts, e.g. `two cups` and `a lamp`, in the singular.

    An article counts as one where a single word follows it.
    """
    words = [*re.findall(r"[a-z-]+|[.,]", prompt.lower()), ".", "."]
    found: dict[str, int] = {}
    for word, label, after in zip(words, words[1:], words[2:], strict=False):
        alone = word in ("a", "an") and (after in ".," or _FUNCTION_WORDS.fullmatch(after) is not None)
        if word in _NUMBERS or alone:
            named = singular(label)
            found.setdefault(_person(_SAME.get(named, named)), _NUMBERS.get(word, 1))
    return [Counted(label, number) for label, number in found.items()]


def singular(word: str) -> str:
    """Return an English noun in the singular."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    if re.search(r"(ch|sh|x|ss|o)es$", word):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us")) else word


def attribute_score(probabilities: Sequence[float]) -> float:
    """Return BLIP-VQA's score: the product over the noun phrases of `p(yes) / (p(yes) + p(no))`; 1 without any."""
    return math.prod(probabilities)


def relation_score(relation: Relation, found: Sequence[Detection], depth: Depth | None = None) -> float:
    """Return the score of a 2D relation, or with `depth` of a 3D one.

    A quarter of each object's confidence and half of the relation's own score; a 2D score below `LEAST` is 0.
    """
    first, second = best(found, relation.first), best(found, relation.second)
    score = sum(_WEIGHT * one.score for one in (first, second) if one is not None)
    if first is not None and second is not None:
        boxes = first.box, relation.words, second.box
        score += 0.5 * (in_plane(*boxes) if depth is None else in_depth(*boxes, depth))
    return score if score >= LEAST or depth is not None else 0.0


def count_score(counted: Sequence[Counted], found: Sequence[Detection]) -> float:
    """Return the score of numeracy: per object half for being there, half for the right number, on average."""
    if not counted:
        return 0.0
    kept = distinct(found)
    total = 0.0
    for label, number in counted:
        seen = sum(one.label == label for one in kept)
        total += 0.5 * (seen > 0) + 0.5 * (seen == number)
    return total / len(counted)


def complex_score(parts: dict[str, float]) -> float:
    """Return the 3-in-1 score: the mean of the attribute, spatial and action scores that a prompt gets."""
    return sum(parts.values()) / len(parts)


def spatial_relation(prompt: str) -> Relation | None:
    """Return the 2D relation of a prompt."""
    return relation_of(prompt, RELATIONS_2D)


def depth_relation(prompt: str) -> Relation | None:
    """Return the 3D relation of a prompt."""
    return relation_of(prompt, RELATIONS_3D)
