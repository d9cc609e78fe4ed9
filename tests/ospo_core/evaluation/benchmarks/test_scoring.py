"""What is asked about a prompt, and the score that follows from the answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ospo_core.evaluation.benchmarks.detections import Box, Detection
from ospo_core.evaluation.benchmarks.gathering import Role, roles_of
from ospo_core.evaluation.benchmarks.prompts import BenchmarkPrompt, Metadata, Proposition
from ospo_core.evaluation.benchmarks.scoring import (
    NO_RELATION,
    UNDECIDABLE,
    Evidence,
    Needs,
    needs_of,
    score_of,
    share_of_yes,
)


def prompt(category: str, text: str, **fields: Any) -> BenchmarkPrompt:
    return BenchmarkPrompt(item_id="x", number=0, category=category, prompt=text, **fields)


def needs(benchmark: str, one: BenchmarkPrompt, judged: bool = False, family: str = "janus_pro") -> Needs:
    return needs_of(benchmark, one, judged, family, family == "shapes")


CAT, DOG = Detection("cat", 1.0, Box(0, 0, 10, 10)), Detection("dog", 1.0, Box(50, 0, 60, 10))
METADATA = Metadata.model_validate(
    {
        "tag": "counting",
        "include": [{"class": "cat", "count": 2}, {"class": "dog", "count": 1, "color": "red"}],
        "prompt": "p",
    }
)
BOTH = ("attribute", "spatial", "action")


@pytest.mark.parametrize(
    ("category", "text", "expected", "roles"),
    [
        ("color", "a red cat and a dog", Needs(questions=("a red cat?", "a dog?")), [Role.VQA]),
        ("numeracy", "two cats", Needs(labels=("cat",), counting=True), [Role.DETECTOR]),
        ("spatial", "a cat next to a dog", Needs(labels=("cat", "dog")), [Role.DETECTOR]),
        ("3d_spatial", "a cat behind a dog", Needs(labels=("cat", "dog"), depth=True), [Role.DETECTOR, Role.DEPTH]),
        ("non_spatial", "a cat eats", Needs(text="a cat eats"), [Role.CLIP]),
    ],
)
def test_compbench_asks_the_evaluator_of_the_category(
    category: str, text: str, expected: Needs, roles: list[Role]
) -> None:
    assert needs("t2i-compbench", prompt(category, text)) == expected and roles_of([expected]) == roles


def test_a_complex_prompt_gets_the_mean_of_its_parts() -> None:
    one = prompt("complex", "the cat is on the left of the dog", parts=BOTH)
    assert needs("t2i-compbench", one) == Needs(("the cat?", "the dog?"), ("cat", "dog"), text=one.prompt)
    evidence = Evidence(answers=[(0.5, 0.5), (0.3, 0.1)], found=[CAT, DOG], similarity=0.3)
    score = score_of("t2i-compbench", one, evidence, judged=False)
    assert score.parts == {"attribute": pytest.approx(0.375), "spatial": 1.0, "action": 0.3}
    assert score.value == pytest.approx((0.375 + 1.0 + 0.3) / 3)
    no_relation = prompt("complex", "the cat saw the dog", parts=BOTH)
    assert set(score_of("t2i-compbench", no_relation, evidence, judged=False).parts) == {"attribute", "action"}


@pytest.mark.parametrize(
    ("category", "text", "evidence", "value"),
    [
        ("color", "a red cat", Evidence(answers=[(0.6, 0.2)]), 0.75),
        ("color", "a red cat", Evidence(answers=[(0.0, 0.0)]), 0.0),
        ("numeracy", "two cats", Evidence(found=[CAT]), 0.5),
        ("spatial", "a cat on the left of a dog", Evidence(found=[CAT, DOG]), 1.0),
        ("3d_spatial", "a cat behind a dog", Evidence(found=[CAT, DOG], depth=np.zeros((9, 9))), 0.5),
        ("non_spatial", "a cat eats", Evidence(similarity=0.31), 0.31),
        ("spatial", "a cat and a dog", Evidence(), None),
    ],
)
def test_compbench_scores(category: str, text: str, evidence: Evidence, value: float | None) -> None:
    score = score_of("t2i-compbench", prompt(category, text), evidence, judged=False)
    assert score.value == (None if value is None else pytest.approx(value))
    assert (score.reason == NO_RELATION) == (value is None)


def test_geneval_by_detections_or_by_a_judge() -> None:
    one = prompt("counting", "p", metadata=METADATA)
    assert needs("geneval", one) == Needs(labels=("cat", "dog"), colored=frozenset({"dog"}), counting=True)
    score = score_of("geneval", one, Evidence(found=[CAT, CAT, DOG]), judged=False)
    assert score.value == 0.0 and "red dog" in score.reason
    asked = needs("geneval", one, judged=True).questions
    assert asked == ("Are there two of this in the image: cat?", "Is there a red dog?")
    assert score_of("geneval", one, Evidence(answers=[(0.9, 0.1), (0.6, 0.4)]), judged=True).value == 1.0
    assert score_of("geneval", one, Evidence(answers=[(0.9, 0.1), (0.4, 0.6)]), judged=True).value == 0.0


def test_dpg_follows_its_graph() -> None:
    graph = [(1, (), "entity"), (2, (1,), "attribute")]
    listed = tuple(Proposition(number=n, parents=up, category=name, question=f"q{n}?") for n, up, name in graph)
    one = prompt("dpg", "p", propositions=listed)
    assert needs("dpg", one).questions == ("q1?", "q2?") == needs("dpg", one, judged=True).questions
    score = score_of("dpg", one, Evidence(answers=[(0.2, 0.8), (0.9, 0.1)]), judged=False)
    assert score.value == 0.0 and score.parts == {"entity": 0.0, "attribute": 1.0}


def test_a_judge_is_asked_about_things_and_the_whole() -> None:
    color, layout = prompt("color", "a red cat and a dog"), prompt("spatial", "a cat next to a dog")
    assert needs("t2i-compbench", color, judged=True).questions == (
        "Does the image show a red cat?",
        "Does the image show a dog?",
    )
    assert needs("t2i-compbench", layout, judged=True).questions[-1] == (
        "Does the image show exactly this: a cat next to a dog?"
    )
    answers = Evidence(answers=[(0.5, 0.5), (1.0, 0.0)])
    assert score_of("t2i-compbench", color, answers, judged=True).value == 0.5
    assert score_of("t2i-compbench", layout, answers, judged=True).value == 0.75


def test_own_prompts_by_questions_or_by_the_oracle() -> None:
    one = prompt("mine", "a red circle", questions=("is it red ?", "is it round ?"))
    assert needs("own prompts", one, family="shapes") == Needs(oracle="a red circle")
    assert needs("own prompts", one, judged=True, family="shapes").questions == one.questions
    assert needs("own prompts", prompt("mine", "a cat")).questions == ("Does the image show exactly this: a cat?",)
    assert score_of("own prompts", one, Evidence(verdict=True), judged=False).value == 1.0
    assert score_of("own prompts", one, Evidence(answers=[(0.9, 0.1), (0.1, 0.9)]), judged=True).value == 0.0
    undecided = score_of("own prompts", one, Evidence(verdict=None), judged=False)
    assert undecided.value is None and undecided.reason == UNDECIDABLE


def test_share_of_yes() -> None:
    assert share_of_yes((0.3, 0.1)) == pytest.approx(0.75) and share_of_yes((0.0, 0.0)) == 0.0
