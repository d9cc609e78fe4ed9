"""Random sentences of every sub-category, and the fixed list of those that are held out.

Held-out sentences are the prompts of the evaluation: pretraining never uses them, and the round's filters keep them out
of the prompts that the model writes.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache

from ospo_core.artifacts.ids import item_id
from ospo_core.schema import PerturbationKind, SubCategory, category_of
from ospo_core.shapes import HELDOUT_FILE
from ospo_core.shapes.grammar import (
    MAX_COUNT,
    RELATIONS_2D,
    RELATIONS_3D,
    SIDES,
    Noun,
    Sentence,
    is_drawable,
)
from ospo_core.shapes.oracle import questions_of
from ospo_core.shapes.perturb import perturbations
from ospo_core.shapes.world import COLORS, CONTAINERS, SHAPES, TEXTURES

_HELDOUT_SEED = 2026
_HELDOUT_COUNTS: dict[SubCategory, int] = {
    SubCategory.COLOR_1: 30,
    SubCategory.SHAPE_1: 20,
    SubCategory.TEXTURE_1: 40,
    SubCategory.COLOR_2: 60,
    SubCategory.SHAPE_2: 60,
    SubCategory.TEXTURE_2: 60,
    SubCategory.SPATIAL_2D: 70,
    SubCategory.SPATIAL_3D: 60,
    SubCategory.NUMERACY_1: 30,
    SubCategory.NUMERACY_2: 60,
    SubCategory.NON_SPATIAL: 60,
    SubCategory.COMPLEX: 60,
}


def _plain(rng: random.Random) -> Noun:
    return Noun(rng.choice(SHAPES), rng.choice(COLORS))


def _textured(rng: random.Random, color_share: float = 0.8) -> Noun:
    color = rng.choice(COLORS) if rng.random() < color_share else None
    return Noun(rng.choice(SHAPES), color, rng.choice(TEXTURES))


def _sided(noun: Noun, rng: random.Random) -> Sentence:
    return Sentence((noun,), side=rng.choice(SIDES) if rng.random() < 0.7 else None)


def _shape_1(rng: random.Random) -> Sentence:
    noun = _plain(rng)
    return _sided(replace(noun, color=None) if rng.random() < 0.3 else noun, rng)


def _texture_2(rng: random.Random) -> Sentence:
    first, second = _textured(rng), rng.choice([_textured, _plain])(rng)
    return Sentence((first, second) if rng.random() < 0.5 else (second, first))


def _related(relation: str, rng: random.Random) -> Sentence:
    return Sentence((_plain(rng), _plain(rng)), ((0, relation, 1),))


def _numeracy_1(rng: random.Random) -> Sentence:
    noun = rng.choice([_plain, _plain, _textured])(rng)
    if rng.random() < 0.15:
        noun = replace(noun, color=None)
    return Sentence((replace(noun, count=rng.randint(2, MAX_COUNT)),))


def _numeracy_2(rng: random.Random) -> Sentence:
    first, second = rng.choice([(1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2), (2, 4), (4, 2), (1, 4), (4, 1)])
    return Sentence((replace(_plain(rng), count=first), replace(_plain(rng), count=second)))


def _non_spatial(rng: random.Random) -> Sentence:
    if rng.random() < 0.5:
        return _related("touching", rng)
    outer = Noun(rng.choice(CONTAINERS), rng.choice(COLORS))
    inner = _plain(rng) if rng.random() < 0.7 else _textured(rng, 1.0)
    return Sentence((inner, outer), ((0, "inside", 1),))


def _complex(rng: random.Random) -> Sentence:
    relation = rng.choice((*RELATIONS_2D, *RELATIONS_3D, "touching"))
    free = relation in RELATIONS_2D
    pick = [_plain, _textured] if free else [_plain]
    pair = (rng.choice(pick)(rng), rng.choice(pick)(rng))
    third = replace(rng.choice([_plain, _textured])(rng), count=rng.choice((1, 1, 2)))
    if rng.random() < 0.6:
        return Sentence((*pair, third), ((0, relation, 1),))
    fourth = _plain(rng)
    return Sentence((*pair, replace(third, count=1), fourth), ((0, relation, 1), (2, rng.choice(RELATIONS_2D), 3)))


_MAKERS: dict[SubCategory, Callable[[random.Random], Sentence]] = {
    SubCategory.COLOR_1: lambda rng: _sided(_plain(rng), rng),
    SubCategory.SHAPE_1: _shape_1,
    SubCategory.TEXTURE_1: lambda rng: _sided(_textured(rng), rng),
    SubCategory.COLOR_2: lambda rng: Sentence((_plain(rng), _plain(rng))),
    SubCategory.SHAPE_2: lambda rng: Sentence((_plain(rng), _plain(rng))),
    SubCategory.TEXTURE_2: _texture_2,
    SubCategory.SPATIAL_2D: lambda rng: _related(rng.choice(RELATIONS_2D), rng),
    SubCategory.SPATIAL_3D: lambda rng: _related(rng.choice(RELATIONS_3D), rng),
    SubCategory.NUMERACY_1: _numeracy_1,
    SubCategory.NUMERACY_2: _numeracy_2,
    SubCategory.NON_SPATIAL: _non_spatial,
    SubCategory.COMPLEX: _complex,
}


def random_sentence(sub_category: SubCategory, rng: random.Random) -> Sentence:
    """Return a random drawable sentence that can be perturbed in the ways its sub-category requires."""
    while True:
        sentence = _MAKERS[sub_category](rng)
        colors = [noun.color for noun in sentence.nouns]
        shapes = [noun.shape for noun in sentence.nouns]
        differ = len(set(colors)) > 1 and len(set(shapes)) > 1
        if sub_category in (SubCategory.COLOR_2, SubCategory.SHAPE_2) and not differ:
            continue
        if sub_category is SubCategory.TEXTURE_2 and not perturbations(sentence, PerturbationKind.SWAP):
            continue
        if is_drawable(sentence):
            return sentence


def draw_heldout() -> list[dict[str, object]]:
    """Return the held-out prompts as rows: distinct texts, drawn with a fixed seed. `HELDOUT_FILE` holds these rows."""
    rng = random.Random(_HELDOUT_SEED)
    rows: list[dict[str, object]] = []
    seen: set[str] = set()
    for sub_category, count in _HELDOUT_COUNTS.items():
        wanted = len(rows) + count
        while len(rows) < wanted:
            sentence = random_sentence(sub_category, rng)
            text = sentence.text()
            if text in seen:
                continue
            seen.add(text)
            row = {"item_id": item_id("heldout", text), "category": category_of(sub_category).value}
            row |= {"sub_category": sub_category.value, "prompt": text}
            rows.append({**row, "questions": [question.text for question in questions_of(sentence)]})
    return rows


@cache
def heldout_texts() -> frozenset[str]:
    """Return the texts of the held-out prompts."""
    lines = HELDOUT_FILE.read_text(encoding="utf-8").splitlines()
    return frozenset(json.loads(line)["prompt"] for line in lines)


def random_training_sentence(sub_category: SubCategory, rng: random.Random) -> Sentence:
    """Return a random sentence that is not held out."""
    while True:
        sentence = random_sentence(sub_category, rng)
        if sentence.text() not in heldout_texts():
            return sentence
