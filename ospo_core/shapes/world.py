"""Things, cells and scenes of the shapes world.

A picture is a 4 x 4 grid of 16-pixel cells, one cell per image token. A cell is empty, or shows a thing in some pose or
one piece of a container's frame. Poses make relations visible: two things *touch* if both are pushed to their shared
edge; a thing that *peeks* is half covered by its neighbour, so it is behind it; a thing in the middle of a frame is
*inside* it. A scene is a grid of glyph numbers, so that rendering and reading back are exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cache

import numpy as np
from numpy.typing import NDArray

GRID = 4
CELL = 16
SIZE = GRID * CELL

COLORS = ("red", "green", "blue", "yellow", "purple", "orange")
SHAPES = ("circle", "square", "triangle", "star", "heart")
TEXTURES = ("striped", "dotted")
CONTAINERS = ("box", "ring")
PLAIN = "plain"

Grid = NDArray[np.int16]
"""[GRID, GRID] glyph numbers, 0 for an empty cell."""


class Pose(StrEnum):
    """Position of a thing in its cell."""

    CENTRED = "centred"
    PUSHED_LEFT = "pushed_left"
    PUSHED_RIGHT = "pushed_right"
    PEEK_LEFT = "peek_left"
    PEEK_RIGHT = "peek_right"


@dataclass(frozen=True, order=True)
class Thing:
    """A shape or a container, with its colour and texture."""

    color: str
    shape: str
    texture: str = PLAIN

    @property
    def is_container(self) -> bool:
        """Whether other things can be inside it."""
        return self.shape in CONTAINERS


@dataclass(frozen=True)
class Glyph:
    """The content of one cell: a thing in a pose, or piece `piece` (0..7, clockwise from top left) of a frame."""

    thing: Thing
    pose: Pose = Pose.CENTRED
    piece: int = -1


FRAME_OFFSETS = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
"""(row, column) of frame piece 0..7 seen from the frame's centre."""


@cache
def glyphs() -> tuple[Glyph | None, ...]:
    """Return all possible contents of a cell; the index is the glyph number, and 0 is the empty cell."""
    listed: list[Glyph | None] = [None]
    for color in COLORS:
        for shape in SHAPES:
            for texture in (PLAIN, *TEXTURES):
                listed.append(Glyph(Thing(color, shape, texture)))
            listed.extend(Glyph(Thing(color, shape), pose) for pose in list(Pose)[1:])
        for shape in CONTAINERS:
            listed.extend(Glyph(Thing(color, shape), piece=piece) for piece in range(len(FRAME_OFFSETS)))
    return tuple(listed)


@cache
def glyph_number(glyph: Glyph) -> int:
    """Return the number of a glyph; raises ValueError if it does not exist, e.g. a textured thing that peeks."""
    if glyph not in glyphs():
        raise ValueError(f"no such glyph: {glyph}")
    return glyphs().index(glyph)


@dataclass(frozen=True)
class Placed:
    """A thing found in a picture, with its cell (a container's is its centre)."""

    thing: Thing
    row: int
    column: int


@dataclass(frozen=True)
class Scene:
    """What a grid shows.

    Attributes:
        things: all things, in reading order.
        touching, in_front, inside: pairs of indices into `things` (first touches second from the left, first covers
            second, first lies in second).
        broken: whether some cell is inconsistent, such as a piece of an incomplete frame.
    """

    things: tuple[Placed, ...]
    touching: frozenset[tuple[int, int]] = frozenset()
    in_front: frozenset[tuple[int, int]] = frozenset()
    inside: frozenset[tuple[int, int]] = frozenset()
    broken: bool = False


def read_scene(grid: Grid) -> Scene:
    """Read a grid of glyph numbers back into things and relations."""
    cells = {(r, c): glyphs()[int(grid[r, c])] for r in range(GRID) for c in range(GRID)}
    things: list[Placed] = []
    index: dict[tuple[int, int], int] = {}
    for (row, column), glyph in cells.items():
        if glyph is not None and glyph.piece < 0:
            index[(row, column)] = len(things)
            things.append(Placed(glyph.thing, row, column))
    frames, broken = _read_frames(cells)
    inside = frozenset(
        (index[(frame.row, frame.column)], len(things) + k)
        for k, frame in enumerate(frames)
        if (frame.row, frame.column) in index
    )
    touching, in_front, unpaired = _read_neighbours(cells, index)
    return Scene((*things, *frames), touching, in_front, inside, broken or unpaired)


Cells = dict[tuple[int, int], Glyph | None]


def _read_frames(cells: Cells) -> tuple[list[Placed], bool]:
    """Return the complete frames, and whether pieces are left over."""
    frames: list[Placed] = []
    used: set[tuple[int, int]] = set()
    for row in range(1, GRID - 1):
        for column in range(1, GRID - 1):
            spots = [(row + dr, column + dc) for dr, dc in FRAME_OFFSETS]
            found = [cells[spot] for spot in spots]
            first = found[0]
            if first is None or not all(g == Glyph(first.thing, piece=k) for k, g in enumerate(found)):
                continue
            frames.append(Placed(first.thing, row, column))
            used.update(spots)
    pieces = {spot for spot, glyph in cells.items() if glyph is not None and glyph.piece >= 0}
    return frames, pieces != used


def _read_neighbours(
    cells: Cells, index: dict[tuple[int, int], int]
) -> tuple[frozenset[tuple[int, int]], frozenset[tuple[int, int]], bool]:
    """Return the touching pairs, the (front, behind) pairs, and whether a posed thing has no partner."""
    touching: set[tuple[int, int]] = set()
    in_front: set[tuple[int, int]] = set()
    partnered: set[tuple[int, int]] = set()
    for (row, column), number in index.items():
        glyph, right = cells[(row, column)], cells.get((row, column + 1))
        if glyph is None or right is None or right.piece >= 0:
            continue
        other = index[(row, column + 1)]
        if glyph.pose is Pose.PUSHED_RIGHT and right.pose is Pose.PUSHED_LEFT:
            touching.add((number, other))
        elif glyph.pose is Pose.CENTRED and right.pose is Pose.PEEK_RIGHT:
            in_front.add((number, other))
        elif glyph.pose is Pose.PEEK_LEFT and right.pose is Pose.CENTRED:
            in_front.add((other, number))
        else:
            continue
        partnered |= {(row, column), (row, column + 1)}
    posed = {spot for spot in index if (g := cells[spot]) is not None and g.pose is not Pose.CENTRED}
    return frozenset(touching), frozenset(in_front), bool(posed - partnered)
