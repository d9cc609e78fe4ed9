"""Grids of glyphs are read back into exactly the things and relations that were put in."""

from __future__ import annotations

import numpy as np
import pytest

from ospo_core.shapes.world import (
    COLORS,
    CONTAINERS,
    FRAME_OFFSETS,
    GRID,
    SHAPES,
    TEXTURES,
    Glyph,
    Grid,
    Pose,
    Thing,
    glyph_number,
    glyphs,
    read_scene,
)

RED_CIRCLE, BLUE_STAR, GREEN_BOX = Thing("red", "circle"), Thing("blue", "star"), Thing("green", "box")


def grid_of(cells: dict[tuple[int, int], Glyph]) -> Grid:
    grid = np.zeros((GRID, GRID), dtype=np.int16)
    for cell, glyph in cells.items():
        grid[cell] = glyph_number(glyph)
    return grid


def frame(thing: Thing, row: int, column: int) -> dict[tuple[int, int], Glyph]:
    return {(row + dr, column + dc): Glyph(thing, piece=k) for k, (dr, dc) in enumerate(FRAME_OFFSETS)}


def test_every_glyph_has_one_number() -> None:
    things = len(COLORS) * (len(SHAPES) * (1 + len(TEXTURES) + len(Pose) - 1) + len(CONTAINERS) * len(FRAME_OFFSETS))
    assert len(glyphs()) == 1 + things
    assert [glyph_number(glyph) for glyph in glyphs() if glyph] == list(range(1, len(glyphs())))


def test_a_textured_thing_cannot_peek() -> None:
    with pytest.raises(ValueError, match="no such glyph"):
        glyph_number(Glyph(Thing("red", "circle", "dotted"), Pose.PEEK_LEFT))


def test_an_empty_grid_shows_nothing() -> None:
    scene = read_scene(np.zeros((GRID, GRID), dtype=np.int16))
    assert scene.things == () and not scene.broken


def test_pushed_neighbours_touch() -> None:
    scene = read_scene(
        grid_of({(1, 1): Glyph(RED_CIRCLE, Pose.PUSHED_RIGHT), (1, 2): Glyph(BLUE_STAR, Pose.PUSHED_LEFT)})
    )
    assert scene.touching == {(0, 1)} and not scene.broken


@pytest.mark.parametrize(
    ("front", "behind", "pose"), [((2, 1), (2, 2), Pose.PEEK_RIGHT), ((2, 1), (2, 0), Pose.PEEK_LEFT)]
)
def test_a_peeking_thing_is_behind_its_neighbour(front: tuple[int, int], behind: tuple[int, int], pose: Pose) -> None:
    scene = read_scene(grid_of({front: Glyph(RED_CIRCLE), behind: Glyph(BLUE_STAR, pose)}))
    ((i, j),) = scene.in_front
    assert (scene.things[i].thing, scene.things[j].thing) == (RED_CIRCLE, BLUE_STAR) and not scene.broken


def test_a_peeking_thing_alone_is_broken() -> None:
    assert read_scene(grid_of({(0, 0): Glyph(BLUE_STAR, Pose.PEEK_LEFT)})).broken


def test_a_thing_in_a_frame_is_inside() -> None:
    scene = read_scene(grid_of({**frame(GREEN_BOX, 1, 2), (1, 2): Glyph(RED_CIRCLE)}))
    ((i, j),) = scene.inside
    assert (scene.things[i].thing, scene.things[j].thing) == (RED_CIRCLE, GREEN_BOX)


def test_a_frame_that_lacks_a_piece_is_broken_and_no_thing() -> None:
    pieces = frame(GREEN_BOX, 1, 1)
    pieces.pop((0, 0))
    scene = read_scene(grid_of(pieces))
    assert scene.broken and scene.things == ()
