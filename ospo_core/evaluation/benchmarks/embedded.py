"""The embedded world's oracle in the place of every evaluator: it reads the objects back from the pixels, exactly."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ospo_core.evaluation.benchmarks.detections import Box, Depth, Detection
from ospo_core.evaluation.judges import embedded_oracle
from ospo_core.shapes.grammar import GrammarError, Noun, PhraseReader, parse
from ospo_core.shapes.oracle import answer, questions_of, read_grids
from ospo_core.shapes.world import CELL, SIZE, Scene, read_scene

_NEAR, _MIDDLE, _FAR = 1.0, 0.6, 0.3


class EmbeddedEyes:
    """Detector, answerer and depth of pictures of the embedded world; in any other picture it finds nothing."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def detect(
        self, pictures: Sequence[bytes], labels: Sequence[Sequence[str]], threshold: Sequence[float]
    ) -> list[list[Detection]]:
        """Return all things that fit each label (`circle`, `striped red circle`), with their colour, surely."""
        return [_found(_scene(picture), names) for picture, names in zip(pictures, labels, strict=True)]

    def answer(self, pictures: Sequence[bytes], questions: Sequence[Sequence[str]]) -> list[list[tuple[float, float]]]:
        """Return (1, 0) or (0, 1) per question about a phrase or sentence of that world, (0, 0) for any other."""
        return [
            [_answered(_scene(picture), question) for question in some]
            for picture, some in zip(pictures, questions, strict=True)
        ]

    def depth(self, pictures: Sequence[bytes]) -> list[Depth]:
        """Return the nearness of every pixel: things in front of others are nearest."""
        return [_nearness(_scene(picture), _pixels(picture)) for picture in pictures]

    def similarity(self, pictures: Sequence[bytes], texts: Sequence[str]) -> list[float]:
        """Return 1 where a picture shows exactly the text, otherwise 0."""
        return [float(bool(one)) for one in self.verdicts(pictures, texts)]

    def verdicts(self, pictures: Sequence[bytes], prompts: Sequence[str]) -> list[bool | None]:
        """Return whether each picture shows exactly its prompt; None if that is undecidable."""
        return [embedded_oracle(_pixels(one), prompt) for one, prompt in zip(pictures, prompts, strict=True)]

    def close(self) -> None:
        """Do nothing."""


def boxes_of(scene: Scene) -> list[Box]:
    """Return the boxes of all things; that of a thing behind another reaches under it."""
    boxes = []
    for number, placed in enumerate(scene.things):
        columns, rows = [placed.column], [placed.row]
        if placed.thing.is_container:
            columns, rows = [placed.column - 1, placed.column + 1], [placed.row - 1, placed.row + 1]
        columns += [scene.things[front].column for front, behind in scene.in_front if behind == number]
        left, top = min(columns) * CELL, min(rows) * CELL
        boxes.append(Box(left, top, (max(columns) + 1) * CELL, (max(rows) + 1) * CELL))
    return boxes


def _pixels(picture: bytes) -> NDArray[np.uint8]:
    """Return a PNG as `[H, W, 3]`; `ospo_core.models.pictures`, which does the same, imports torch."""
    with Image.open(BytesIO(picture)) as image:
        return np.asarray(image.convert("RGB"))


def _scene(picture: bytes) -> Scene:
    """Return what a picture shows; nothing if it has another size than that world's."""
    pixels = _pixels(picture)
    return read_scene(read_grids(pixels[None])[0]) if pixels.shape == (SIZE, SIZE, 3) else Scene(())


def _found(scene: Scene, labels: Sequence[str]) -> list[Detection]:
    boxes, found = boxes_of(scene), []
    for label in labels:
        noun = _noun(label)
        for placed, box in zip(scene.things, boxes, strict=True):
            if noun is not None and noun.matches(placed.thing):
                found.append(Detection(label, 1.0, box, placed.thing.color))
    return found


def _noun(label: str) -> Noun | None:
    reader = PhraseReader(label.split())
    try:
        noun = reader.description()
    except GrammarError:
        return None
    return None if reader.left else noun


def _answered(scene: Scene, question: str) -> tuple[float, float]:
    """Answer `a red circle?`, `is there a red circle ?`, `is the red circle left of the blue square ?` and the like."""
    text = re.sub(r"^(is there|are there|does the image show) ", "", question.lower().replace("?", "").strip())
    text = re.sub(r"^is the ", "a ", text)
    text = re.sub(r" the (?!left|right|top|bottom)", " a ", text)
    try:
        sentence = parse(text)
    except GrammarError:
        return 0.0, 0.0
    holds = all(answer(one, scene) for one in questions_of(sentence) if one.noun is not None)
    return float(holds), float(not holds)


def _nearness(scene: Scene, picture: NDArray[np.uint8]) -> Depth:
    depth = np.zeros(picture.shape[:2])
    in_front = {front for front, _ in scene.in_front}
    behind = {number for _, number in scene.in_front}
    for number, placed in enumerate(scene.things):
        near = _NEAR if number in in_front else _FAR if number in behind else _MIDDLE
        depth[placed.row * CELL : (placed.row + 1) * CELL, placed.column * CELL : (placed.column + 1) * CELL] = near
    return depth
