"""Training examples of each of the embedded model's tasks, drawn from random scenes.

A given share of the captions to draw is wrong in one detail, like captions from the web. The model therefore hedges
when it draws, which leaves a flaw for the method to cure. Questions and text tasks are always correct.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ospo_core.prompts.families import PromptAnswer, family
from ospo_core.schema import PERTURBATIONS, PerturbationKind, SubCategory
from ospo_core.shapes.grammar import Sentence
from ospo_core.shapes.oracle import Question, answer, questions_of
from ospo_core.shapes.perturb import PREFERRED_DETAILS, Perturbed, perturbations
from ospo_core.shapes.placement import Cells, PlacementError, paint, place, place_alike
from ospo_core.shapes.pretraining.model import DESCRIBE, DESCRIBE_CELLS
from ospo_core.shapes.sentences import random_training_sentence
from ospo_core.shapes.world import GRID, Grid, glyphs, read_scene

SHAPES_FAMILY = family("shapes")
SUB_CATEGORIES = tuple(SubCategory)


@dataclass(frozen=True)
class TextLesson:
    """An instruction and the answer to learn."""

    instruction: str
    answer: str


@dataclass(frozen=True)
class DrawingLesson:
    """A prompt, the grid to draw, and whether the prompt is dropped (for classifier-free guidance)."""

    prompt: str
    grid: Grid
    unconditional: bool


def sketch(rng: random.Random) -> tuple[SubCategory, Sentence, Cells]:
    """Return a random sentence and cells for its things."""
    while True:
        sub_category = rng.choice(SUB_CATEGORIES)
        sentence = random_training_sentence(sub_category, rng)
        try:
            return sub_category, sentence, place(sentence, rng)
        except PlacementError:
            continue


def pick_perturbation(
    sentence: Sentence, sub_category: SubCategory, rng: random.Random, kind: PerturbationKind | None = None
) -> Perturbed | None:
    """Return a random perturbation, usually of the detail that the sub-category is about; None if there is none."""
    possible = perturbations(sentence, kind or rng.choice(PERTURBATIONS[sub_category]))
    if not possible:
        return None
    wanted = [made for made in possible if made.detail in PREFERRED_DETAILS.get(sub_category, ())]
    if wanted and rng.random() < 0.85:
        possible = wanted
    detail = rng.choice(sorted({made.detail for made in possible}))
    return rng.choice([made for made in possible if made.detail == detail])


def drawing_lesson(rng: random.Random, wrong_share: float, drop_share: float, dense_share: float) -> DrawingLesson:
    """Return a caption and its picture; the given shares of captions are dense, wrong or dropped."""
    sub_category, sentence, cells = sketch(rng)
    grid = paint(sentence, cells, rng)
    dense = rng.random() < dense_share
    text = sentence.text(cells if dense else None)
    if rng.random() < wrong_share:
        made = pick_perturbation(sentence, sub_category, rng)
        if made is not None:
            text = made.sentence.text(place_alike(made.sentence, made.origin, cells, rng) if dense else None)
    return DrawingLesson(text, grid, rng.random() < drop_share)


def _writing(rng: random.Random) -> TextLesson:
    sub_category = rng.choice(SUB_CATEGORIES)
    shown = [
        prompt_answer(random_training_sentence(sub_category, rng))
        for _ in range(5 if sub_category is SubCategory.COMPLEX else 3)
    ]
    made = prompt_answer(random_training_sentence(sub_category, rng))
    return TextLesson(SHAPES_FAMILY.write_prompt(sub_category, shown).instruction, SHAPES_FAMILY.format_prompt(made))


def prompt_answer(sentence: Sentence) -> PromptAnswer:
    """Return a sentence as an answer of the prompt-writing task: text, concepts and relations."""
    nouns = [noun.words for noun in sentence.nouns]
    related = tuple((nouns[i], relation, nouns[j]) for i, relation, j in sentence.relations)
    return PromptAnswer(sentence.text(), tuple(nouns), related)


def _perturbing(rng: random.Random) -> TextLesson:
    while True:
        sub_category = rng.choice(SUB_CATEGORIES)
        sentence, kind = random_training_sentence(sub_category, rng), rng.choice(PERTURBATIONS[sub_category])
        made = pick_perturbation(sentence, sub_category, rng, kind)
        if made is not None:
            chat = SHAPES_FAMILY.perturb(kind, sentence.text(), sub_category)
            return TextLesson(chat.instruction, made.sentence.text())


def _densifying(rng: random.Random) -> TextLesson:
    while True:
        sub_category, sentence, cells = sketch(rng)
        made = pick_perturbation(sentence, sub_category, rng)
        if made is None:
            continue
        try:
            others = place_alike(made.sentence, made.origin, cells, rng)
        except PlacementError:
            continue
        chat = SHAPES_FAMILY.densify(sentence.text(), made.sentence.text(), sub_category)
        answer = SHAPES_FAMILY.format_dense(sentence.text(cells), made.sentence.text(others))
        return TextLesson(chat.instruction, answer)


def _decomposing(rng: random.Random) -> TextLesson:
    sub_category = rng.choice(SUB_CATEGORIES)
    sentence = random_training_sentence(sub_category, rng)
    if rng.random() < 0.5:
        made = pick_perturbation(sentence, sub_category, rng)
        sentence = made.sentence if made is not None else sentence
    asked = [question.text for question in questions_of(sentence)]
    return TextLesson(SHAPES_FAMILY.decompose(sentence.text()).instruction, SHAPES_FAMILY.format_questions(asked))


def text_lesson(rng: random.Random) -> TextLesson:
    """Return an example of writing, perturbing, densifying or decomposing a prompt."""
    return rng.choice([_writing, *[_perturbing] * 4, _densifying, _decomposing])(rng)


def disturbed(grid: Grid, rng: random.Random) -> Grid:
    """Return a grid in which one to three cells are changed, like a badly drawn picture."""
    changed = grid.copy()
    filled = [tuple(cell) for cell in np.argwhere(grid > 0)]
    for _ in range(rng.choice((1, 1, 2, 3))):
        cell = rng.choice(filled) if rng.random() < 0.4 else (rng.randrange(GRID), rng.randrange(GRID))
        changed[cell] = 0 if rng.random() < 0.3 else rng.randrange(1, len(glyphs()))
    return changed


def looking_lessons(rng: random.Random, questions: int) -> tuple[Grid, list[TextLesson]]:
    """Return a grid with a caption (unless it was disturbed) and questions, half of them with the answer no."""
    sub_category, sentence, cells = sketch(rng)
    grid = paint(sentence, cells, rng)
    lessons: list[TextLesson] = []
    if rng.random() < 0.3:
        grid = disturbed(grid, rng)
    elif rng.random() < 0.5:
        lessons.append(TextLesson(DESCRIBE_CELLS, sentence.text(cells)))
    else:
        lessons.append(TextLesson(DESCRIBE, sentence.text()))
    scene, pool = read_scene(grid), _question_pool(sentence, sub_category, rng)
    for wanted, (said, *_) in ((True, SHAPES_FAMILY.yes), (False, SHAPES_FAMILY.no)):
        fitting = [question for question in pool if answer(question, scene) is wanted]
        asked = rng.sample(fitting, min(len(fitting), questions // 2))
        lessons += [TextLesson(question.text, said) for question in asked]
    return grid, lessons


def _question_pool(sentence: Sentence, sub_category: SubCategory, rng: random.Random) -> Sequence[Question]:
    """Return distinct questions about a sentence, its hard negatives and an unrelated sentence."""
    pool = questions_of(sentence)
    for kind in rng.sample(PERTURBATIONS[sub_category], 3):
        made = pick_perturbation(sentence, sub_category, rng, kind)
        pool += questions_of(made.sentence) if made is not None else []
    pool += questions_of(random_training_sentence(sub_category, rng))
    return list(dict.fromkeys(pool))
