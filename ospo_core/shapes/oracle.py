"""The oracle: reads a picture back into a scene and decides exactly whether it shows a prompt. Used only to measure.

It also writes the questions that cover a sentence, and answers them about a scene.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ospo_core.shapes.grammar import NUMBERS, RELATIONS_2D, Noun, Sentence, parse
from ospo_core.shapes.render import Pictures, glyph_pictures, split
from ospo_core.shapes.world import GRID, Grid, Placed, Scene, read_scene


def satisfies(picture: Pictures, prompt: str) -> bool:
    """Whether a picture [H, W, 3] shows exactly what a prompt says.

    Raises:
        GrammarError: the prompt is not a sentence of the shapes world.
    """
    return shows(read_scene(read_grids(picture[None])[0]), parse(prompt))


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


@dataclass(frozen=True)
class Question:
    """A yes/no question about a picture.

    Attributes:
        noun: what the question is about; None asks for the number of all things.
        count: the number in question; 1 with a noun means at least one, any other number means exactly that many.
        relation, other: asks whether `noun` is in a relation to `other`.
        side: asks whether `noun` is on that side.
    """

    noun: Noun | None = None
    count: int = 1
    relation: str | None = None
    other: Noun | None = None
    side: str | None = None

    @property
    def text(self) -> str:
        """The question in words, ending with ` ?`."""
        if self.noun is None:
            return "is there one object ?" if self.count == 1 else f"are there {NUMBERS[self.count]} objects ?"
        if self.relation and self.other:
            return f"is the {self.noun.words} {self.relation} the {self.other.words} ?"
        if self.side:
            return f"is the {self.noun.words} {self.side} ?"
        return f"{'is' if self.count == 1 else 'are'} there {self.noun.text} ?"


def questions_of(sentence: Sentence) -> list[Question]:
    """Return the questions that together cover the meaning of a sentence."""
    questions = [Question(noun, noun.count) for noun in sentence.nouns]
    questions.append(Question(count=sentence.total))
    for i, relation, j in sentence.relations:
        questions.append(Question(sentence.nouns[i], relation=relation, other=sentence.nouns[j]))
    if sentence.side:
        questions.append(Question(sentence.nouns[0], side=sentence.side))
    return questions


def answer(question: Question, scene: Scene) -> bool:
    """Return the true answer of a question about a scene."""
    if question.noun is None:
        return len(scene.things) == question.count
    found = [k for k, placed in enumerate(scene.things) if question.noun.matches(placed.thing)]
    if question.relation and question.other:
        others = [k for k, placed in enumerate(scene.things) if question.other.matches(placed.thing)]
        return any(related(scene, i, question.relation, j) for i in found for j in others if i != j)
    if question.side:
        return any(on_side(scene.things[k], question.side) for k in found)
    return bool(found) if question.count == 1 else len(found) == question.count


def related(scene: Scene, i: int, relation: str, j: int) -> bool:
    """Whether thing `i` is in a relation to thing `j`."""
    if relation in RELATIONS_2D:
        first, second = scene.things[i], scene.things[j]
        return direction((first.row, first.column), (second.row, second.column)) == relation
    if relation == "touching":
        return (i, j) in scene.touching or (j, i) in scene.touching
    if relation == "in front of":
        return (i, j) in scene.in_front
    if relation == "behind":
        return (j, i) in scene.in_front
    return (i, j) in scene.inside


def direction(first: tuple[int, int], second: tuple[int, int]) -> str | None:
    """Return the direction of a cell from another, along the larger distance; None on a diagonal."""
    down, right = first[0] - second[0], first[1] - second[1]
    if abs(down) == abs(right):
        return None
    if abs(right) > abs(down):
        return "left of" if right < 0 else "right of"
    return "above" if down < 0 else "below"


def on_side(placed: Placed, side: str) -> bool:
    """Whether a thing is in that half of the picture."""
    half = GRID // 2
    return {
        "on the left": placed.column < half,
        "on the right": placed.column >= half,
        "at the top": placed.row < half,
        "at the bottom": placed.row >= half,
    }[side]


def shows(scene: Scene, sentence: Sentence) -> bool:
    """Whether a scene shows exactly what a sentence says: nothing missing, nothing extra, all relations true."""
    if scene.broken or len(scene.things) != sentence.total:
        return False
    counted = all(sum(n.matches(p.thing) for p in scene.things) == n.count for n in sentence.nouns)
    return counted and all(answer(question, scene) for question in questions_of(sentence))
