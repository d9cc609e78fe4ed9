"""Rendering: one small anti-aliased picture per glyph, drawn once; a scene is a mosaic of them."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ospo_core.shapes.world import CELL, FRAME_OFFSETS, GRID, SIZE, Glyph, Grid, Pose, glyphs

Pictures = NDArray[np.uint8]
"""[..., height, width, 3] RGB pictures, 0..255."""

BACKGROUND = (247, 244, 237)
PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (214, 48, 49),
    "green": (38, 160, 88),
    "blue": (45, 98, 206),
    "yellow": (244, 202, 40),
    "purple": (140, 72, 178),
    "orange": (240, 128, 34),
}
_SCALE = 8
_RADIUS = 6.0
_PUSH = 2.0
_SHADOW = (196, 190, 178)


def _polygon(shape: str, cx: float, cy: float, radius: float) -> list[tuple[float, float]]:
    """Return the outline of a shape around (cx, cy), in pixels."""
    if shape == "square":
        half = radius * 0.86
        return [(cx - half, cy - half), (cx + half, cy - half), (cx + half, cy + half), (cx - half, cy + half)]
    if shape == "triangle":
        return [(cx, cy - radius), (cx + radius, cy + radius * 0.86), (cx - radius, cy + radius * 0.86)]
    if shape == "star":
        turns = [(-math.pi / 2 + k * math.pi / 5, radius * (1.08 if k % 2 == 0 else 0.46)) for k in range(10)]
        return [(cx + r * math.cos(a), cy + 0.5 + r * math.sin(a)) for a, r in turns]
    if shape == "heart":
        angles = [2 * math.pi * k / 60 for k in range(60)]
        return [
            (
                cx + radius * (16 * math.sin(a) ** 3) / 16,
                cy - radius * (13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a) - math.cos(4 * a)) / 16,
            )
            for a in angles
        ]
    angles = [2 * math.pi * k / 60 for k in range(60)]
    return [(cx + radius * math.cos(a), cy + radius * math.sin(a)) for a in angles]


def _texture(texture: str, size: int) -> Image.Image:
    """Return a mask ([size, size], 255 where the texture's white shows) in supersampled pixels."""
    mask = Image.new("L", (size, size), 0)
    pen = ImageDraw.Draw(mask)
    step = 4 * _SCALE
    if texture == "striped":
        for y in range(_SCALE, size, step):
            pen.rectangle([0, y, size, y + 1.6 * _SCALE], fill=255)
    elif texture == "dotted":
        dot = 1.0 * _SCALE
        for y in range(2 * _SCALE, size, step):
            for x in range(2 * _SCALE, size, step):
                pen.ellipse([x - dot, y - dot, x + dot, y + dot], fill=255)
    return mask


def _draw_thing(glyph: Glyph) -> Image.Image:
    """Draw a thing in its pose on one cell."""
    side = CELL * _SCALE
    cell = Image.new("RGB", (side, side), BACKGROUND)
    middle = CELL / 2
    shift = {
        Pose.CENTRED: 0.0,
        Pose.PUSHED_LEFT: -_PUSH,
        Pose.PUSHED_RIGHT: _PUSH,
        Pose.PEEK_LEFT: middle - 1.0,
        Pose.PEEK_RIGHT: 1.0 - middle,
    }[glyph.pose]
    outline = [(x * _SCALE, y * _SCALE) for x, y in _polygon(glyph.thing.shape, middle + shift, middle, _RADIUS)]
    mask = Image.new("L", (side, side), 0)
    ImageDraw.Draw(mask).polygon(outline, fill=255)
    cell.paste(Image.new("RGB", (side, side), PALETTE[glyph.thing.color]), mask=mask)
    white = Image.composite(_texture(glyph.thing.texture, side), Image.new("L", (side, side), 0), mask)
    cell.paste(Image.new("RGB", (side, side), BACKGROUND), mask=white)
    ImageDraw.Draw(cell).line([*outline, *outline[:2]], fill=PALETTE[glyph.thing.color], width=_SCALE, joint="curve")
    if glyph.pose in (Pose.PEEK_LEFT, Pose.PEEK_RIGHT):
        edge = side - _SCALE if glyph.pose is Pose.PEEK_LEFT else 0
        ImageDraw.Draw(cell).rectangle([edge, 2 * _SCALE, edge + _SCALE - 1, side - 2 * _SCALE], fill=_SHADOW)
    return cell


def _draw_frame_piece(glyph: Glyph) -> Image.Image:
    """Draw one piece of a container, cut from a frame of three by three cells."""
    side, width = 3 * CELL * _SCALE, 4 * _SCALE
    whole = Image.new("RGB", (side, side), BACKGROUND)
    pen, margin = ImageDraw.Draw(whole), 3 * _SCALE
    box = [margin, margin, side - margin, side - margin]
    if glyph.thing.shape == "box":
        pen.rectangle(box, outline=PALETTE[glyph.thing.color], width=width)
    else:
        pen.ellipse(box, outline=PALETTE[glyph.thing.color], width=width)
    row, column = (1 + k for k in FRAME_OFFSETS[glyph.piece])
    cell = CELL * _SCALE
    return whole.crop((column * cell, row * cell, (column + 1) * cell, (row + 1) * cell))


@cache
def glyph_pictures() -> Pictures:
    """Return the picture of every glyph: [glyphs, CELL, CELL, 3] uint8."""
    drawn = np.empty((len(glyphs()), CELL, CELL, 3), dtype=np.uint8)
    for number, glyph in enumerate(glyphs()):
        if glyph is None:
            drawn[number] = BACKGROUND
            continue
        large = _draw_frame_piece(glyph) if glyph.piece >= 0 else _draw_thing(glyph)
        drawn[number] = np.asarray(large.resize((CELL, CELL), Image.Resampling.BOX))
    return drawn


def render(grids: Grid) -> Pictures:
    """Draw grids [..., GRID, GRID] as pictures [..., SIZE, SIZE, 3] uint8."""
    cells = glyph_pictures()[grids].reshape(-1, GRID, GRID, CELL, CELL, 3)
    return np.ascontiguousarray(cells.transpose(0, 1, 3, 2, 4, 5).reshape(*grids.shape[:-2], SIZE, SIZE, 3))


def split(pictures: Pictures) -> Pictures:
    """Cut pictures [N, SIZE, SIZE, 3] into cells [N, GRID, GRID, CELL, CELL, 3]."""
    return pictures.reshape(-1, GRID, CELL, GRID, CELL, 3).transpose(0, 1, 3, 2, 4, 5)
