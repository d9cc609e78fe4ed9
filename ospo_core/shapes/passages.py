"""Lessons as passages: runs of tokens that must stay together, each token with all that the losses need to know.

A passage is an array [fields, length]; the fields are those of `Field`. Segment 0 of a passage is seen by all of it;
the other segments, the things asked about a picture, see segment 0 and themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from ospo_core.prompts.base_family import IMAGE_MARKER
from ospo_core.shapes.lessons import SHAPES_FAMILY, DrawingLesson, TextLesson
from ospo_core.shapes.tokenizer import BEGIN_IMAGE, BOS, IMAGE, PAD, token_id
from ospo_core.shapes.world import GRID, Grid

NOTHING = -1
_ASKED = "@question@"
_CELLS = GRID * GRID

Passage = NDArray[np.int64]
"""[fields, length]."""


class Field(IntEnum):
    """Rows of a passage.

    TOKEN: the token's id. PART: which loss the token is learnt by, a `Part` or NOTHING. POSITION: its place for the
    rotary embedding. SEGMENT: see the module. DRAWN: the code to draw here. SEEN: the code of the cell looked at here.
    """

    TOKEN = 0
    PART = 1
    POSITION = 2
    SEGMENT = 3
    DRAWN = 4
    SEEN = 5


class Part(IntEnum):
    """What a labelled token belongs to: the text tasks, a caption of a picture, an answer about a picture."""

    TEXT = 0
    CAPTION = 1
    ANSWER = 2


class Passages:
    """Makes passages with one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.pad = token_id(tokenizer, PAD)
        self._kept = {token_id(tokenizer, token) for token in (BOS, BEGIN_IMAGE)}

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text)["input_ids"])

    def _answer_ids(self, text: str) -> list[int]:
        """Return the ids of a text that goes on: no begin of sequence, but its end."""
        return [*self._ids(text)[1:], int(self.tokenizer.eos_token_id)]

    def drawing(self, lesson: DrawingLesson) -> Passage:
        """Return a prompt and the slots of its picture's codes; an unconditional prompt is padding but for two tags."""
        prompt = self._ids(SHAPES_FAMILY.generation_text(lesson.prompt))
        if lesson.unconditional:
            prompt = [token if token in self._kept else self.pad for token in prompt]
        passage = _blank([*prompt, *[self.pad] * _CELLS])
        passage[Field.DRAWN, len(prompt) :] = lesson.grid.reshape(-1)
        return passage

    def text(self, lesson: TextLesson) -> Passage:
        """Return an instruction and its answer."""
        before = self._ids(SHAPES_FAMILY.chat_text(lesson.instruction))
        passage = _blank(before + self._answer_ids(lesson.answer))
        passage[Field.PART, len(before) :] = Part.TEXT
        return passage

    def looking(self, grid: Grid, lessons: Sequence[TextLesson]) -> Passage:
        """Return a picture's placeholders once, then each lesson about it in a segment of its own."""
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
    """Return a passage of tokens that nothing is learnt from, in segment 0."""
    passage = np.full((len(Field), len(tokens)), NOTHING, dtype=np.int64)
    passage[Field.TOKEN] = tokens
    passage[Field.POSITION] = np.arange(len(tokens))
    passage[Field.SEGMENT] = 0
    return passage
