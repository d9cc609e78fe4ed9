"""All hard negatives of a sentence: every way to replace, swap or drop one detail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from ospo_core.schema import PerturbationKind, SubCategory
from ospo_core.shapes.grammar import (
    MAX_COUNT,
    RELATIONS_2D,
    RELATIONS_3D,
    SIDES,
    GrammarError,
    Noun,
    Sentence,
    is_drawable,
    parse,
)
from ospo_core.shapes.world import COLORS, CONTAINERS, SHAPES, TEXTURES


@dataclass(frozen=True)
class Perturbed:
    """A hard negative.

    Attributes:
        sentence: the changed sentence.
        origin: for each of its nouns, the index of the base's noun.
        detail: what was changed: color, shape, texture, count, relation, side or object.
    """

    sentence: Sentence
    origin: tuple[int, ...]
    detail: str


def perturbations(base: Sentence, kind: PerturbationKind) -> list[Perturbed]:
    """Return every valid perturbation of one kind: drawable, and with another meaning than the base."""
    makers: dict[PerturbationKind, Callable[[Sentence], Iterator[Perturbed]]] = {
        PerturbationKind.REPLACE: _replaced,
        PerturbationKind.SWAP: _swapped,
        PerturbationKind.DROP: _dropped,
    }
    unique: dict[str, Perturbed] = {}
    for made in makers[kind](base):
        if is_drawable(made.sentence) and made.sentence.meaning() != base.meaning():
            unique.setdefault(made.sentence.text(), made)
    return list(unique.values())


def is_valid_perturbation(base: str, negative: str, kind: PerturbationKind) -> bool:
    """Whether a text is a perturbation of this kind: it differs from the base in exactly one detail."""
    try:
        sentence, wanted = parse(base), parse(negative).text()
    except GrammarError:
        return False
    return any(made.sentence.text() == wanted for made in perturbations(sentence, kind))


PREFERRED_DETAILS: dict[SubCategory, tuple[str, ...]] = {
    SubCategory.COLOR_1: ("color",),
    SubCategory.COLOR_2: ("color",),
    SubCategory.SHAPE_1: ("shape",),
    SubCategory.SHAPE_2: ("shape",),
    SubCategory.TEXTURE_1: ("texture", "color", "shape"),
    SubCategory.TEXTURE_2: ("texture",),
    SubCategory.SPATIAL_2D: ("relation", "color", "shape"),
    SubCategory.SPATIAL_3D: ("relation", "color", "shape"),
    SubCategory.NUMERACY_1: ("count",),
    SubCategory.NUMERACY_2: ("count",),
}
"""The details that a sub-category's prompts are about; of the others any detail will do."""


def _with_noun(base: Sentence, index: int, noun: Noun) -> Sentence:
    """Return the sentence with one noun replaced."""
    return replace(base, nouns=(*base.nouns[:index], noun, *base.nouns[index + 1 :]))


def _replaced(base: Sentence) -> Iterator[Perturbed]:
    """Yield sentences in which one attribute, number, relation or side is replaced."""
    same = tuple(range(len(base.nouns)))
    for k, noun in enumerate(base.nouns):
        for detail, changed in _noun_changes(noun, may_count=not base.relations and not base.side):
            yield Perturbed(_with_noun(base, k, changed), same, detail)
    for k, (i, relation, j) in enumerate(base.relations):
        family = next((f for f in (RELATIONS_2D, RELATIONS_3D) if relation in f), ())
        for other in family:
            related = (*base.relations[:k], (i, other, j), *base.relations[k + 1 :])
            yield Perturbed(replace(base, relations=related), same, "relation")
    if base.side:
        for side in SIDES:
            yield Perturbed(replace(base, side=side), same, "side")


def _noun_changes(noun: Noun, may_count: bool) -> Iterator[tuple[str, Noun]]:
    """Yield (detail, noun) with one attribute of a noun, or its number, replaced."""
    if noun.color:
        yield from (("color", replace(noun, color=color)) for color in COLORS)
    if noun.texture:
        yield from (("texture", replace(noun, texture=texture)) for texture in TEXTURES)
    shapes = CONTAINERS if noun.shape in CONTAINERS else SHAPES
    yield from (("shape", replace(noun, shape=shape)) for shape in shapes)
    if may_count and noun.count > 1:
        yield from (("count", replace(noun, count=count)) for count in range(1, MAX_COUNT + 1))


def _swapped(base: Sentence) -> Iterator[Perturbed]:
    """Yield sentences in which two nouns swap an attribute, their numbers or their places in a relation."""
    same = tuple(range(len(base.nouns)))
    for i in range(len(base.nouns)):
        for j in range(i + 1, len(base.nouns)):
            a, b = base.nouns[i], base.nouns[j]
            for detail in ("color", "texture", "shape", "count"):
                first, second = getattr(a, detail), getattr(b, detail)
                if first == second or (detail == "color" and None in (first, second)):
                    continue
                changed = _with_noun(base, i, replace(a, **{detail: second}))
                yield Perturbed(_with_noun(changed, j, replace(b, **{detail: first})), same, detail)
    for i, _, j in base.relations:
        nouns = list(base.nouns)
        nouns[i], nouns[j] = nouns[j], nouns[i]
        origin = list(same)
        origin[i], origin[j] = j, i
        yield Perturbed(replace(base, nouns=tuple(nouns)), tuple(origin), "relation")


def _dropped(base: Sentence) -> Iterator[Perturbed]:
    """Yield sentences without one noun and its relations."""
    contained = {i for i, relation, _ in base.relations if relation == "inside"}
    for k in range(len(base.nouns)):
        if len(base.nouns) == 1 or k in contained:
            continue
        left = [n for n in range(len(base.nouns)) if n != k]
        moved = {old: new for new, old in enumerate(left)}
        relations = tuple((moved[i], relation, moved[j]) for i, relation, j in base.relations if k not in (i, j))
        nouns = tuple(base.nouns[n] for n in left)
        yield Perturbed(Sentence(nouns, relations, base.side), tuple(left), "object")
