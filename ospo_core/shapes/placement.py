"""Placement: cells for the nouns of a sentence, and the resulting grid of glyphs."""

from __future__ import annotations

import random
from functools import cache

import numpy as np

from ospo_core.shapes.grammar import RELATIONS_2D, RELATIONS_3D, Cell, Noun, Sentence
from ospo_core.shapes.oracle import direction, shows
from ospo_core.shapes.world import (
    COLORS,
    FRAME_OFFSETS,
    GRID,
    PLAIN,
    Glyph,
    Grid,
    Pose,
    Thing,
    glyph_number,
    read_scene,
)

Cells = tuple[tuple[Cell, ...], ...]
"""Cells of the things of each noun, in the order of the sentence."""

_ALL = [(row, column) for row in range(GRID) for column in range(GRID)]
_TRIES = 120


class PlacementError(ValueError):
    """No arrangement was found for a sentence."""


def paint(sentence: Sentence, cells: Cells, rng: random.Random) -> Grid:
    """Return the grid of a sentence with its things in the given cells; unnamed colours are random."""
    grid: Grid = np.zeros((GRID, GRID), dtype=np.int16)
    things = [Thing(n.color or rng.choice(COLORS), n.shape, n.texture or PLAIN) for n in sentence.nouns]
    for thing, spots in zip(things, cells, strict=True):
        for spot in spots:
            _put(grid, thing, spot, Pose.CENTRED)
    for i, relation, j in sentence.relations:
        first, second = cells[i][0], cells[j][0]
        if relation == "touching":
            left = i if first[1] < second[1] else j
            _put(grid, things[left], cells[left][0], Pose.PUSHED_RIGHT)
            _put(grid, things[i + j - left], cells[i + j - left][0], Pose.PUSHED_LEFT)
        elif relation in RELATIONS_3D:
            front, behind = (i, j) if relation == "in front of" else (j, i)
            peeks_right = cells[behind][0][1] > cells[front][0][1]
            _put(grid, things[behind], cells[behind][0], Pose.PEEK_RIGHT if peeks_right else Pose.PEEK_LEFT)
        elif relation == "inside":
            _put(grid, things[i], first, Pose.CENTRED)
    return grid


def _put(grid: Grid, thing: Thing, cell: Cell, pose: Pose) -> None:
    """Write a thing into the grid: into one cell, or a container into the frame around it."""
    if not thing.is_container:
        grid[cell] = glyph_number(Glyph(thing, pose))
        return
    for piece, (down, right) in enumerate(FRAME_OFFSETS):
        grid[cell[0] + down, cell[1] + right] = glyph_number(Glyph(thing, piece=piece))


def fits(sentence: Sentence, cells: Cells) -> bool:
    """Whether the cells have no collisions and satisfy the relations of the sentence."""
    inside = [(i, j) for i, relation, j in sentence.relations if relation == "inside"]
    contained = {j for _, j in inside}
    spots = [spot for k, own in enumerate(cells) if k not in contained for spot in own]
    if len(set(spots)) != len(spots) or any(
        len(own) != noun.count for own, noun in zip(cells, sentence.nouns, strict=True)
    ):
        return False
    for i, j in inside:
        row, column = cells[j][0]
        frame = {(row + down, column + right) for down, right in FRAME_OFFSETS}
        if cells[i] != cells[j] or not {row, column} <= {1, 2} or frame & set(spots):
            return False
    if any(
        relation != "inside" and (cells[i][0], cells[j][0]) not in _pairs(relation)
        for i, relation, j in sentence.relations
    ):
        return False
    return shows(read_scene(paint(sentence, cells, random.Random(0))), sentence)


def place(sentence: Sentence, rng: random.Random) -> Cells:
    """Return random cells for a sentence; things joined by `and` are placed in reading order.

    Raises:
        PlacementError: no arrangement was found in 120 attempts.
    """
    for _ in range(_TRIES):
        proposed = _propose(sentence, rng)
        cells = _in_reading_order(sentence, proposed) if proposed is not None else None
        if cells is not None and fits(sentence, cells):
            return cells
    raise PlacementError(f"no arrangement found for {sentence.text()!r}")


def _in_reading_order(sentence: Sentence, cells: Cells) -> Cells | None:
    """Return the same cells reassigned, so that things joined by `and` are in the order of the sentence.

    Nouns without relations divide their cells among them in that order. The result is None if a group of related nouns
    would still begin after something that comes later in the sentence.
    """
    related = {k for i, _, j in sentence.relations for k in (i, j)}
    unrelated = [k for k in range(len(cells)) if k not in related]
    spots = sorted(cell for k in unrelated for cell in cells[k])
    assigned = list(cells)
    for k in unrelated:
        assigned[k], spots = tuple(spots[: len(cells[k])]), spots[len(cells[k]) :]
    second = {j for _, _, j in sentence.relations}
    groups = [k for k in range(len(cells)) if k not in second]
    starts = [min((*assigned[k], *(assigned[k + 1] if k + 1 in second else ()))) for k in groups]
    return tuple(assigned) if starts == sorted(starts) else None


@cache
def _pairs(relation: str) -> list[tuple[Cell, Cell]]:
    """Return the pairs of cells whose things can be in a relation: by direction, or side by side."""
    if relation in RELATIONS_2D:
        return [(a, b) for a in _ALL for b in _ALL if direction(a, b) == relation]
    return [(a, b) for a in _ALL for b in _ALL if a[0] == b[0] and abs(a[1] - b[1]) == 1]


def _propose(sentence: Sentence, rng: random.Random) -> Cells | None:
    """Draw cells in which related nouns satisfy their relation; None if they collide."""
    taken: set[Cell] = set()
    chosen: dict[int, tuple[Cell, ...]] = {}
    for i, relation, j in sentence.relations:
        if relation == "inside":
            centre = (rng.randint(1, 2), rng.randint(1, 2))
            chosen[i] = chosen[j] = (centre,)
            taken |= {centre} | {(centre[0] + down, centre[1] + right) for down, right in FRAME_OFFSETS}
        else:
            pair = rng.choice(_pairs(relation))
            if taken & set(pair):
                return None
            chosen[i], chosen[j] = (pair[0],), (pair[1],)
            taken |= set(pair)
    for k, noun in enumerate(sentence.nouns):
        if k not in chosen:
            free = [cell for cell in _ALL if cell not in taken]
            if len(free) < noun.count:
                return None
            chosen[k] = tuple(sorted(rng.sample(free, noun.count)))
            taken |= set(chosen[k])
    return tuple(chosen[k] for k in range(len(sentence.nouns)))


def place_alike(negative: Sentence, origin: tuple[int, ...], cells: Cells, rng: random.Random) -> Cells:
    """Return cells for a perturbed sentence that keep as much of the base's arrangement as possible.

    `cells` are those of the base, and `origin` names for each noun of the negative the noun of the base it comes from.
    """
    kept = [_resize(cells[source], noun, cells, rng) for source, noun in zip(origin, negative.nouns, strict=True)]
    if fits(negative, tuple(kept)):
        return tuple(kept)
    for i, _, j in negative.relations:
        swapped = list(kept)
        swapped[i], swapped[j] = kept[j], kept[i]
        if fits(negative, tuple(swapped)):
            return tuple(swapped)
    for _ in range(_TRIES):
        fresh = _propose(negative, rng)
        if fresh is None:
            continue
        related = {k for i, _, j in negative.relations for k in (i, j)} or set(range(len(kept)))
        mixed = tuple(fresh[k] if k in related else kept[k] for k in range(len(kept)))
        if fits(negative, mixed):
            return mixed
    return place(negative, rng)


def _resize(own: tuple[Cell, ...], noun: Noun, cells: Cells, rng: random.Random) -> tuple[Cell, ...]:
    """Remove cells, or add free ones, until a noun has one per thing."""
    if len(own) >= noun.count:
        return own[: noun.count]
    taken = {cell for spots in cells for cell in spots}
    free = [cell for cell in _ALL if cell not in taken]
    return tuple(sorted((*own, *rng.sample(free, min(len(free), noun.count - len(own))))))
