"""Collation: passages packed into rows, one batch a step, each a function of the seed and the step alone.

Shape letters: N rows, S their length, P pictures looked at.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from ospo_core.artifacts.ids import derive_seed
from ospo_core.shapes.lessons import drawing_lesson, looking_lessons, text_lesson
from ospo_core.shapes.passages import NOTHING, Field, Passage, Passages
from ospo_core.shapes.render import render
from ospo_core.shapes.world import Grid


@dataclass(frozen=True)
class LessonPlan:
    """How much of everything a step holds, and the shares of the captions' flaws."""

    drawings: int = 64
    texts: int = 64
    pictures: int = 24
    questions: int = 6
    row_length: int = 160
    wrong_share: float = 0.4
    drop_share: float = 0.1
    dense_share: float = 0.4
    pixel_noise: float = 5.0


@dataclass(frozen=True)
class Batch:
    """One step's tensors.

    Attributes:
        tokens: [N, S] ids; padding where nothing stands.
        parts: [N, S] the `Part` that a token is learnt by, or NOTHING.
        positions: [N, S] places within the passage.
        passages, segments: [N, S] which passage of the row, and which segment of it; NOTHING for padding.
        drawn, seen: [N, S] codes to draw, codes looked at, or NOTHING.
        pixels: [P, 3, H, W] in -1..1, in the order in which their placeholders stand.
    """

    tokens: Tensor
    parts: Tensor
    positions: Tensor
    passages: Tensor
    segments: Tensor
    drawn: Tensor
    seen: Tensor
    pixels: Tensor

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        return Batch(**{name: value.to(device) for name, value in vars(self).items()})


class Lessons(Dataset[Batch]):
    """Step number to batch; steps from `hedge_from` on have wrong captions."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, plan: LessonPlan, seed: int, steps: int, hedge_from: int
    ) -> None:
        self.plan, self.seed, self.steps, self.hedge_from = plan, seed, steps, hedge_from
        self.make = Passages(tokenizer)

    def __len__(self) -> int:
        """Return the number of steps."""
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        """Return the batch of a step."""
        plan, rng = self.plan, random.Random(derive_seed("lessons", self.seed, step))
        wrong = plan.wrong_share if step >= self.hedge_from else 0.0
        drawings = (drawing_lesson(rng, wrong, plan.drop_share, plan.dense_share) for _ in range(plan.drawings))
        passages = [self.make.drawing(lesson) for lesson in drawings]
        passages += [self.make.text(text_lesson(rng)) for _ in range(plan.texts)]
        grids: dict[int, Grid] = {}
        for _ in range(plan.pictures):
            grid, about = looking_lessons(rng, plan.questions)
            grids[len(passages)] = grid
            passages.append(self.make.looking(grid, about))
        rows = pack([passage.shape[1] for passage in passages], plan.row_length)
        pixels = self._pixels([grids[k] for row in rows for k in row if k in grids], rng)
        return collate([[passages[k] for k in row] for row in rows], self.make.pad, pixels)

    def _pixels(self, grids: Sequence[Grid], rng: random.Random) -> Tensor:
        """Return the noisy pictures [P, 3, H, W] of grids."""
        noise = np.random.default_rng(rng.getrandbits(32))
        pictures: NDArray[np.float32] = render(np.stack(grids)).astype(np.float32)
        pictures += self.plan.pixel_noise * noise.standard_normal(pictures.shape, dtype=np.float32)
        return torch.from_numpy(pictures.clip(0, 255) / 127.5 - 1.0).permute(0, 3, 1, 2).contiguous()


def pack(lengths: Sequence[int], row_length: int) -> list[list[int]]:
    """Return which items share a row: longest first, each into the first row with room (first fit decreasing).

    An item longer than a row gets one of its own.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for item in sorted(range(len(lengths)), key=lambda k: (-lengths[k], k)):
        row = next((r for r, left in enumerate(room) if left >= lengths[item]), None)
        if row is None:
            row = len(rows)
            rows.append([])
            room.append(max(row_length, lengths[item]))
        rows[row].append(item)
        room[row] -= lengths[item]
    return rows


def collate(rows: Sequence[Sequence[Passage]], pad: int, pixels: Tensor) -> Batch:
    """Return rows of passages as tensors, padded on the right."""
    length = max(sum(passage.shape[1] for passage in row) for row in rows)
    table = np.full((len(Field) + 1, len(rows), length), NOTHING, dtype=np.int64)
    table[Field.TOKEN], table[Field.POSITION] = pad, 0
    for number, row in enumerate(rows):
        start = 0
        for which, passage in enumerate(row):
            end = start + passage.shape[1]
            table[: len(Field), number, start:end] = passage
            table[len(Field), number, start:end] = which
            start = end
    tokens, parts, positions, segments, drawn, seen, passages = torch.from_numpy(table).unbind(0)
    return Batch(tokens, parts, positions, passages, segments, drawn, seen, pixels)
