"""From lessons to batches: passages of tokens, packed into rows; each batch is a function of seed and step alone.

A passage is an array [fields, length] of tokens that must stay together, each with what the losses need to know about
it; the fields are those of `Field`. Segment 0 of a passage is visible to all of it. The other segments, one per
question or caption of a picture, see only segment 0 and themselves.

Shape letters: N rows, S tokens per row, P pictures looked at.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from ospo_core.artifacts.ids import derive_seed
from ospo_core.prompts.families import IMAGE_MARKER, Chat
from ospo_core.shapes.pretraining.lessons import (
    SHAPES_FAMILY,
    DrawingLesson,
    TextLesson,
    drawing_lesson,
    looking_lessons,
    text_lesson,
)
from ospo_core.shapes.pretraining.model import BEGIN_IMAGE, BOS, IMAGE, PAD, token_id
from ospo_core.shapes.render import render
from ospo_core.shapes.world import GRID, Grid

NOTHING = -1
_ASKED = "@question@"
_CELLS = GRID * GRID

Passage = NDArray[np.int64]
"""[fields, length]."""


class Field(IntEnum):
    """Rows of a passage.

    TOKEN: the token's id. PART: the loss that includes the token, a `Part` or NOTHING. POSITION: its position in the
    rotary embedding. SEGMENT: see the module. DRAWN: the code to draw here. SEEN: the code of the cell seen here.
    """

    TOKEN, PART, POSITION, SEGMENT, DRAWN, SEEN = range(6)


class Part(IntEnum):
    """The loss of a labelled token: of the text tasks, of captions of pictures, or of answers about pictures."""

    TEXT, CAPTION, ANSWER = range(3)


class Passages:
    """Turns lessons into passages with one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.pad = token_id(tokenizer, PAD)
        self._kept = {token_id(tokenizer, token) for token in (BOS, BEGIN_IMAGE)}

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text)["input_ids"])

    def _answer_ids(self, text: str) -> list[int]:
        return [*self._ids(text)[1:], int(self.tokenizer.eos_token_id)]

    def drawing(self, lesson: DrawingLesson) -> Passage:
        """Return a prompt and slots for its picture's codes; an unconditional prompt is padding except for two tags."""
        prompt = self._ids(SHAPES_FAMILY.generation_text(lesson.prompt))
        if lesson.unconditional:
            prompt = [token if token in self._kept else self.pad for token in prompt]
        passage = _blank([*prompt, *[self.pad] * _CELLS])
        passage[Field.DRAWN, len(prompt) :] = lesson.grid.reshape(-1)
        return passage

    def text(self, lesson: TextLesson) -> Passage:
        """Return an instruction and its answer."""
        before = self._ids(SHAPES_FAMILY.chat_text(Chat(lesson.instruction)))
        passage = _blank(before + self._answer_ids(lesson.answer))
        passage[Field.PART, len(before) :] = Part.TEXT
        return passage

    def looking(self, grid: Grid, lessons: Sequence[TextLesson]) -> Passage:
        """Return a picture's placeholders, then each lesson about the picture in a segment of its own."""
        head, tail = SHAPES_FAMILY.vqa_text(_ASKED).replace(IMAGE_MARKER, IMAGE * _CELLS).split(f" {_ASKED} ")
        prefix = _blank(self._ids(head))
        slots = prefix[Field.TOKEN] == token_id(self.tokenizer, IMAGE)
        prefix[Field.SEEN, slots] = grid.reshape(-1)
        pieces = [prefix]
        for segment, lesson in enumerate(lessons, start=1):
            asked, said = self._ids(f"{lesson.instruction} {tail}")[1:], self._answer_ids(lesson.answer)
            piece = _blank(asked + said)
            piece[Field.POSITION] += prefix.shape[1]
            piece[Field.SEGMENT] = segment
            short = lesson.answer in (*SHAPES_FAMILY.yes, *SHAPES_FAMILY.no)
            piece[Field.PART, len(asked) :] = Part.ANSWER if short else Part.CAPTION
            pieces.append(piece)
        return np.concatenate(pieces, axis=1)


def _blank(tokens: Sequence[int]) -> Passage:
    """Return a passage of tokens without any loss, in segment 0."""
    passage = np.full((len(Field), len(tokens)), NOTHING, dtype=np.int64)
    passage[Field.TOKEN] = tokens
    passage[Field.POSITION] = np.arange(len(tokens))
    passage[Field.SEGMENT] = 0
    return passage


@dataclass(frozen=True)
class LessonPlan:
    """The composition of a step, and the shares of wrong, dropped and dense captions."""

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
        tokens: [N, S] ids; padded on the right.
        parts: [N, S] the `Part` whose loss includes the token, or NOTHING.
        positions: [N, S] positions within the passage.
        passages, segments: [N, S] index of the passage within the row, and of the segment; NOTHING for padding.
        drawn, seen: [N, S] codes to draw, and codes of the cells looked at, or NOTHING.
        pixels: [P, 3, H, W] in -1..1, in the order of their placeholders.
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
    """Maps the number of a step to its batch; from step `hedge_from` on, some captions are wrong."""

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
        seen = np.stack([grids[k] for row in rows for k in row if k in grids])
        pictures: NDArray[np.float32] = render(seen).astype(np.float32)
        noise = np.random.default_rng(rng.getrandbits(32)).standard_normal(pictures.shape, dtype=np.float32)
        pictures += plan.pixel_noise * noise
        pixels = torch.from_numpy(pictures.clip(0, 255) / 127.5 - 1.0).permute(0, 3, 1, 2).contiguous()
        return collate([[passages[k] for k in row] for row in rows], self.make.pad, pixels)


def pack(lengths: Sequence[int], row_length: int) -> list[list[int]]:
    """Return which items share a row, by first fit decreasing.

    An item longer than a row gets a row of its own.
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
