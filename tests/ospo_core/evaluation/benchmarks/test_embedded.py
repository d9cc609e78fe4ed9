"""The scoring rules against the embedded world's oracle: from the objects that it reads they give its verdicts."""

from __future__ import annotations

import random
from collections.abc import Iterator
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from ospo_core.evaluation.benchmarks.compbench import Counted, Relation, count_score, relation_score
from ospo_core.evaluation.benchmarks.embedded import EmbeddedEyes
from ospo_core.evaluation.benchmarks.geneval import labels_of, reasons_against
from ospo_core.evaluation.benchmarks.prompts import Metadata
from ospo_core.schema import SubCategory
from ospo_core.shapes.grammar import Sentence, is_drawable
from ospo_core.shapes.oracle import Question, answer, questions_of, satisfies, shows
from ospo_core.shapes.placement import paint, place
from ospo_core.shapes.render import render
from ospo_core.shapes.sentences import random_sentence
from ospo_core.shapes.world import CONTAINERS, SHAPES, Scene, read_scene

PLANE = {
    "left of": "on the left of",
    "right of": "on the right of",
    "above": "on the top of",
    "below": "on the bottom of",
}
SENTENCES = 60


def png(pixels: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def cases(*kinds: SubCategory) -> Iterator[tuple[Sentence, Scene, np.ndarray]]:
    """Yield sentences with scenes: half are of the sentence, others of one of its kind or with its nouns swapped."""
    rng = random.Random(0)
    for kind in kinds:
        for number in range(SENTENCES):
            sentence = random_sentence(kind, rng)
            drawn = sentence if number % 2 else random_sentence(kind, rng)
            swapped = Sentence(tuple(reversed(sentence.nouns)), sentence.relations)
            if number % 4 == 0 and len(sentence.nouns) == 2 and sentence.relations and is_drawable(swapped):
                drawn = swapped
            grid = paint(drawn, place(drawn, rng), rng)
            yield sentence, read_scene(grid), render(grid)


def metadata_of(sentence: Sentence) -> Metadata:
    """Return GenEval's requirements of a sentence without relations: each noun that often, and nothing else."""
    include = [{"class": noun.words, "count": noun.count} for noun in sentence.nouns]
    exclude = [{"class": noun.words, "count": noun.count + 1} for noun in sentence.nouns]
    for shape in (*SHAPES, *CONTAINERS):
        of_shape = sum(noun.count for noun in sentence.nouns if noun.shape == shape)
        exclude.append({"class": shape, "count": of_shape + 1})
    document = {"tag": "counting", "include": include, "exclude": exclude, "prompt": sentence.text()}
    return Metadata.model_validate(document)


def test_geneval_counts_as_the_oracle_does() -> None:
    kinds = (SubCategory.NUMERACY_1, SubCategory.NUMERACY_2, SubCategory.COLOR_1, SubCategory.COLOR_2)
    verdicts = []
    for sentence, scene, picture in cases(*kinds):
        if sentence.relations or sentence.side:
            continue
        metadata = metadata_of(sentence)
        (found,) = EmbeddedEyes().detect([png(picture)], [labels_of(metadata)], [0.3])
        verdicts.append(shows(scene, sentence))
        assert (not reasons_against(metadata, found)) == verdicts[-1] == satisfies(picture, sentence.text())
    assert 40 < sum(verdicts) < len(verdicts) - 40


def test_geneval_names_colours_as_the_oracle_does() -> None:
    verdicts = []
    for sentence, scene, picture in cases(SubCategory.COLOR_1):
        noun = sentence.nouns[0]
        wanted = {"class": noun.shape, "count": 1, "color": noun.color}
        metadata = Metadata.model_validate({"tag": "colors", "include": [wanted], "prompt": "p"})
        (found,) = EmbeddedEyes().detect([png(picture)], [labels_of(metadata)], [0.3])
        verdicts.append(answer(Question(noun), scene))
        assert (not reasons_against(metadata, found)) == verdicts[-1]
    assert 10 < sum(verdicts) < len(verdicts) - 10


def test_relations_in_the_plane_are_the_oracles() -> None:
    verdicts = []
    for sentence, scene, picture in cases(SubCategory.SPATIAL_2D):
        for i, relation, j in sentence.relations:
            first, second = sentence.nouns[i], sentence.nouns[j]
            (found,) = EmbeddedEyes().detect([png(picture)], [(first.words, second.words)], [0.3])
            score = relation_score(Relation(first.words, PLANE[relation], second.words), found)
            verdicts.append(answer(Question(first, relation=relation, other=second), scene))
            assert (score > 0.5) == verdicts[-1]
    assert 20 < sum(verdicts) < len(verdicts) - 10


def test_relations_in_depth_are_the_oracles() -> None:
    verdicts = []
    for sentence, scene, picture in cases(SubCategory.SPATIAL_3D):
        for i, relation, j in sentence.relations:
            first, second = sentence.nouns[i], sentence.nouns[j]
            (found,) = EmbeddedEyes().detect([png(picture)], [(first.words, second.words)], [0.3])
            (depth,) = EmbeddedEyes().depth([png(picture)])
            score = relation_score(Relation(first.words, relation, second.words), found, depth)
            verdicts.append(answer(Question(first, relation=relation, other=second), scene))
            assert (score > 0.5) == verdicts[-1]
    assert 20 < sum(verdicts) < len(verdicts) - 10


def test_numbers_are_the_oracles() -> None:
    verdicts = []
    for sentence, scene, picture in cases(SubCategory.NUMERACY_1, SubCategory.NUMERACY_2):
        counted = [Counted(noun.words, noun.count) for noun in sentence.nouns]
        (found,) = EmbeddedEyes().detect([png(picture)], [[one.label for one in counted]], [0.3])
        exact = all(sum(n.matches(p.thing) for p in scene.things) == n.count for n in sentence.nouns)
        verdicts.append(exact)
        assert (count_score(counted, found) == 1.0) == exact
    assert 30 < sum(verdicts) < len(verdicts) - 10


@pytest.mark.parametrize("kind", list(SubCategory))
def test_questions_are_answered_as_by_the_oracle(kind: SubCategory) -> None:
    for sentence, scene, picture in cases(kind):
        asked = [question for question in questions_of(sentence) if question.noun is not None]
        (given,) = EmbeddedEyes().answer([png(picture)], [[question.text for question in asked]])
        assert [yes == 1.0 for yes, _ in given] == [answer(question, scene) for question in asked]
        assert all(yes + no == 1.0 for yes, no in given)


def test_what_is_not_of_that_world_is_undecided() -> None:
    eyes, other = EmbeddedEyes(), png(np.zeros((30, 30, 3), dtype=np.uint8))
    assert eyes.verdicts([other], ["a red circle"]) == [None] and eyes.detect([other], [["circle"]], [0.0]) == [[]]
    empty = png(render(np.zeros((4, 4), dtype=np.int16)))
    assert eyes.answer([empty], [["why?", "a red circle?"]]) == [[(0.0, 0.0), (0.0, 1.0)]]
    assert eyes.detect([empty], [["cat", "red"]], [0.0]) == [[]] and eyes.similarity([empty], ["a red circle"]) == [0.0]
