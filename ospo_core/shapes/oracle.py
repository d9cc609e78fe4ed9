"""The oracle: reads any picture back into a scene and decides whether it shows a prompt. Used for measuring only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ospo_core.shapes.grammar import parse
from ospo_core.shapes.render import Pictures, glyph_pictures, split
from ospo_core.shapes.truth import shows
from ospo_core.shapes.world import GRID, Grid, read_scene


def read_grids(pictures: Pictures) -> Grid:
    """Return the glyph numbers [N, GRID, GRID] nearest (mean squared error) to the cells of pictures [N, H, W, 3]."""
    templates = glyph_pictures().reshape(len(glyph_pictures()), -1).astype(np.float32)
    cells = split(pictures).reshape(-1, templates.shape[1]).astype(np.float32)
    nearest: list[NDArray[np.int64]] = []
    for start in range(0, len(cells), 4096):
        part = cells[start : start + 4096]
        distance = (templates**2).sum(axis=1)[None] - 2.0 * part @ templates.T
        nearest.append(distance.argmin(axis=1))
    return np.concatenate(nearest).reshape(-1, GRID, GRID).astype(np.int16)


def satisfies(picture: Pictures, prompt: str) -> bool:
    """Whether a picture [H, W, 3] shows exactly what a prompt says.

    Raises:
        GrammarError: the prompt is not a sentence of the shapes world.
    """
    return shows(read_scene(read_grids(picture[None])[0]), parse(prompt))
