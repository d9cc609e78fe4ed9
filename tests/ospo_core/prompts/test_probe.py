"""The probe: every task of every wanted sub-category, shares that add up, raw examples, and rules that find faults."""

from __future__ import annotations

import json
import random
from dataclasses import asdict
from pathlib import Path

import pytest

from ospo_core.engines.base import Request
from ospo_core.prompts import filters, probe
from ospo_core.prompts.families import family
from ospo_core.prompts.families import janus_pro_texts as texts
from ospo_core.prompts.filters import ContaminationCheck
from ospo_core.prompts.probe import EXAMPLES, Probe, edit_problem, pair_problem, questions_problem
from ospo_core.schema import PERTURBATIONS, PerturbationKind, SubCategory
from tests.support.fake_engine import FakeEngine
from tests.support.rounds import small_round
from tests.support.scripted_text import ScriptedEngine

REPLACE, SWAP, DROP = PerturbationKind


def probed(engine: FakeEngine | ScriptedEngine, root: Path, name: str = "shapes", answers: int = 20) -> list[Probe]:
    config = small_round(root, prompts={"quotas": {"color_2": 5, "complex": 0}}, perturbations={"densify": True})
    return list(probe.probe(engine, family(name), config, answers))


def test_every_task_is_about_what_the_one_before_it_wrote(tmp_path: Path) -> None:
    found = {one.task: one for one in probed(ScriptedEngine(), tmp_path)}
    assert list(found) == ["prompt", "replace", "swap", "drop", "dense", "questions"]
    assert found["prompt"].parsed == 20 and 5 < found["prompt"].distinct <= 20
    assert found["replace"].answers == found["prompt"].distinct and found["replace"].valid > 0
    assert found["drop"].failures == {probe.CHANGES_TOO_MUCH: found["drop"].answers}  # the script changes a colour
    assert found["dense"].valid == found["dense"].answers == found["replace"].valid + found["swap"].valid
    for one in found.values():
        assert one.valid + sum(one.failures.values()) == one.answers
        assert one.valid <= one.parsed <= one.answers and one.distinct <= one.parsed


def test_raw_answers_are_shown_by_reason_and_the_result_is_json(tmp_path: Path) -> None:
    def talk(request: Request) -> str:
        return random.Random(request.seed).choice(["Sure,\nhere!", "a red circle | red circle | none"])

    written = probed(FakeEngine(talk), tmp_path)[0]
    assert 0 < written.parsed < 20 and written.distinct == 1
    assert written.examples[filters.UNPARSABLE] == [r"Sure,\nhere!"] * EXAMPLES
    assert written.share(written.parsed) == written.parsed / 20
    assert json.loads(json.dumps(asdict(written)))["failures"] == {filters.UNPARSABLE: 20 - written.parsed}


def test_without_usable_answers_the_familys_examples_are_perturbed(tmp_path: Path) -> None:
    found = {one.task: one for one in probed(FakeEngine(lambda request: "?"), tmp_path)}
    seeds = len(family("shapes").seed_examples(SubCategory.COLOR_2))
    assert [found[task].answers for task in ("replace", "dense", "questions")] == [seeds, 0, seeds]
    assert all(one.parsed == one.valid == 0 and one.share(one.parsed) == 0 for one in found.values())


def test_a_repeated_evaluation_prompt_is_found(tmp_path: Path) -> None:
    config = small_round(tmp_path, prompts={"quotas": {"color_1": 1}})
    engine = FakeEngine(lambda request: "a red circle | red circle | none")
    first = next(probe.probe(engine, family("shapes"), config, 4, ContaminationCheck(["a red circle"])))
    assert first.failures == {filters.CONTAMINATED: 4} and first.parsed == 4


def test_the_rules_find_no_fault_with_the_examples_shown_to_janus_pro() -> None:
    for one in texts.perturbation_texts().families.values():
        for kind, edits in one.examples.items():
            assert [edit for edit in edits if edit_problem(kind, edit.base, edit.changed)] == []
    for pairs in texts.densification_texts().families.values():
        for pair in pairs.examples:
            assert pair_problem((pair.base, pair.changed), (pair.first, pair.second)) is None
    for each in texts.question_texts().families.values():
        for shown in each.examples:
            assert questions_problem(shown.prompt, shown.questions) is None
    for sub_category in SubCategory:
        assert PERTURBATIONS[sub_category]
        for seed in family("janus_pro").seed_examples(sub_category):
            assert probe._concept_problem(seed) is None


@pytest.mark.parametrize(
    ("kind", "negative", "reason"),
    [
        (REPLACE, "a red bell and a blue drum", filters.EQUAL_TO_BASE),
        (REPLACE, "a red bell and five blue drums", filters.NUMBER_ABOVE_FOUR),
        (REPLACE, "two dogs chase their tails in a park", probe.CHANGES_TOO_MUCH),
        (REPLACE, "a red bell and a blue drum in a wide green field", probe.CHANGES_TOO_MUCH),
        (REPLACE, "a red bell and an orange drum", None),
        (SWAP, "a blue bell and a red drum", None),
        (SWAP, "a blue bell and a green drum", probe.CHANGES_TOO_MUCH),
        (DROP, "a red bell", None),
        (DROP, "a bell and a blue drum", None),
        (DROP, "a large bell", probe.CHANGES_TOO_MUCH),
    ],
)
def test_an_edit_has_to_change_little_in_the_way_of_its_kind(
    kind: PerturbationKind, negative: str, reason: str | None
) -> None:
    assert edit_problem(kind, "a red bell and a blue drum", negative) == reason


def test_dense_prompts_and_questions_have_to_state_the_prompt() -> None:
    edit = ("a red bell", "a blue bell")
    assert pair_problem(edit, ("A red bell on a hill.", "A blue bell on a hill.")) is None
    assert pair_problem(edit, ("A bell.", "A blue bell.")) == probe.OMITS_DETAILS
    assert pair_problem(edit, ("A bell.", "a bell")) == filters.DENSE_EQUAL
    assert questions_problem("a red bell", ["Is there a bell?", "Is the bell red?"]) is None
    assert questions_problem("a red bell", ["Is there a bell?"]) == probe.OMITS_DETAILS
    assert questions_problem("a red bell", ["Is there a bell?", "Is it sunny?"]) == probe.ASKS_ABOUT_OTHER_THINGS
    assert questions_problem("a nurse folds a towel", ["Is the nurse folding the towel?"]) is None
