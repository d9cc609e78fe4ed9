"""Collation: lessons as right-padded tensors, one batch a step, each a function of the seed and the step alone.

Shape letters: D drawings, L their length, T text lessons, P pictures, S other lengths.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from ospo_core.artifacts.ids import derive_seed
from ospo_core.prompts.base_family import IMAGE_MARKER
from ospo_core.shapes.lessons import SHAPES_FAMILY, TextLesson, drawing_lesson, looking_lessons, text_lesson
from ospo_core.shapes.render import render
from ospo_core.shapes.tokenizer import BEGIN_IMAGE, BOS, IMAGE, PAD, token_id
from ospo_core.shapes.world import GRID

IGNORED = -100
_ASKED = "@question@"


@dataclass(frozen=True)
class LessonPlan:
    """How much of everything a step holds, and the shares of the captions' flaws."""

    drawings: int = 44
    texts: int = 56
    pictures: int = 20
    questions: int = 4
    wrong_share: float = 0.4
    drop_share: float = 0.1
    dense_share: float = 0.5
    pixel_noise: float = 5.0


@dataclass(frozen=True)
class Batch:
    """One step's tensors.

    Attributes:
        draw_ids: [D, L] prompt, then GRID * GRID image slots, then padding.
        draw_slots: [D, L] True at the image slots.
        draw_codes: [D, GRID * GRID] codes of the picture.
        text_ids, text_labels: [T, S].
        look_ids, look_labels, look_positions: [P, S]; a picture's placeholders, then all that is asked about it.
        look_segments: [P, S] 0 for the picture, 1.. for what is asked, -1 for padding; see `looking_mask`.
        look_codes: [P, GRID * GRID] codes of the pictures shown.
        pixels: [P, 3, H, W] in -1..1.
    """

    draw_ids: Tensor
    draw_slots: Tensor
    draw_codes: Tensor
    text_ids: Tensor
    text_labels: Tensor
    look_ids: Tensor
    look_labels: Tensor
    look_positions: Tensor
    look_segments: Tensor
    look_codes: Tensor
    pixels: Tensor

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        return Batch(**{name: value.to(device) for name, value in vars(self).items()})


class Lessons(Dataset[Batch]):
    """Step number to batch; steps from `hedge_from` on have wrong captions."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, plan: LessonPlan, seed: int, steps: int, hedge_from: int
    ) -> None:
        self.tokenizer, self.plan, self.seed, self.steps, self.hedge_from = tokenizer, plan, seed, steps, hedge_from
        self.pad = token_id(tokenizer, PAD)
        self.kept = {token_id(tokenizer, token) for token in (BOS, BEGIN_IMAGE)}

    def __len__(self) -> int:
        """Return the number of steps."""
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        """Return the batch of a step."""
        rng = random.Random(derive_seed("lessons", self.seed, step))
        wrong = self.plan.wrong_share if step >= self.hedge_from else 0.0
        drawings = self._drawings(rng, wrong)
        texts = self._texts([text_lesson(rng) for _ in range(self.plan.texts)])
        return Batch(*drawings, *texts, *self._pictures(rng))

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text)["input_ids"])

    def _drawings(self, rng: random.Random, wrong: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return ids, slots and codes of the drawing lessons."""
        plan = self.plan
        lessons = [drawing_lesson(rng, wrong, plan.drop_share, plan.dense_share) for _ in range(plan.drawings)]
        prompts = [self._ids(SHAPES_FAMILY.generation_text(lesson.prompt)) for lesson in lessons]
        for lesson, prompt in zip(lessons, prompts, strict=True):
            if lesson.unconditional:
                prompt[:] = [token if token in self.kept else self.pad for token in prompt]
        slots = GRID * GRID
        length = max(map(len, prompts)) + slots
        ids = torch.full((len(prompts), length), self.pad)
        where = torch.zeros(len(prompts), length, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = torch.tensor(prompt)
            where[row, len(prompt) : len(prompt) + slots] = True
        codes = np.stack([lesson.grid.reshape(-1) for lesson in lessons]).astype(np.int64)
        return ids, where, torch.from_numpy(codes)

    def _answer_ids(self, text: str) -> list[int]:
        """Return the ids of a text that goes on: no begin of sequence, but its end."""
        return [*self._ids(text)[1:], int(self.tokenizer.eos_token_id)]

    def _texts(self, lessons: list[TextLesson]) -> tuple[Tensor, Tensor]:
        """Return ids and labels; only answers and the end of sequence are labelled."""
        rows: list[tuple[list[int], int]] = []
        for lesson in lessons:
            before = self._ids(SHAPES_FAMILY.chat_text(lesson.instruction))
            rows.append((before + self._answer_ids(lesson.answer), len(before)))
        length = max(len(ids) for ids, _ in rows)
        ids = torch.full((len(rows), length), self.pad)
        labels = torch.full((len(rows), length), IGNORED)
        for row, (sequence, start) in enumerate(rows):
            ids[row, : len(sequence)] = torch.tensor(sequence)
            labels[row, start : len(sequence)] = torch.tensor(sequence[start:])
        return ids, labels

    def _pictures(self, rng: random.Random) -> tuple[Tensor, ...]:
        """Return ids, labels, positions, segments of the lessons about pictures, and the pictures' codes and pixels."""
        grids, rows = [], []
        for image in range(self.plan.pictures):
            grid, about = looking_lessons(rng, image, self.plan.questions)
            grids.append(grid)
            rows.append(self._packed(about))
        length = max(len(row) for row in rows)
        blank = (self.pad, IGNORED, 0, -1)
        packed = torch.tensor([[*row, *[blank] * (length - len(row))] for row in rows])
        noise = np.random.default_rng(rng.getrandbits(32))
        pictures: NDArray[np.float32] = render(np.stack(grids)).astype(np.float32)
        pictures += self.plan.pixel_noise * noise.standard_normal(pictures.shape, dtype=np.float32)
        pixels = torch.from_numpy(pictures.clip(0, 255) / 127.5 - 1.0).permute(0, 3, 1, 2).contiguous()
        codes = torch.from_numpy(np.stack(grids).reshape(len(grids), -1).astype(np.int64))
        return (*packed.unbind(-1), codes, pixels)

    def _packed(self, lessons: list[TextLesson]) -> list[tuple[int, int, int, int]]:
        """Return (id, label, position, segment) of every token: the picture once, then each lesson about it."""
        head, tail = SHAPES_FAMILY.vqa_text(_ASKED).replace(IMAGE_MARKER, IMAGE * (GRID * GRID)).split(f" {_ASKED} ")
        prefix = self._ids(head)
        row = [(token, IGNORED, position, 0) for position, token in enumerate(prefix)]
        for segment, lesson in enumerate(lessons, start=1):
            asked = self._ids(f"{lesson.instruction} {tail}")[1:]
            said = self._answer_ids(lesson.answer)
            labels = [IGNORED] * len(asked) + said
            for offset, (token, label) in enumerate(zip(asked + said, labels, strict=True)):
                row.append((token, label, len(prefix) + offset, segment))
        return row
