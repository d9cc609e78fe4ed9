"""People decide: a round waits for enough of their answers, and the answers of now promote or refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.config import RoundConfig
from ospo_core.config.sections import EvaluationConfig, PromotionConfig
from ospo_core.evaluation.labels import store_label
from ospo_core.evaluation.people_gate import awaits_people, decided_by_people
from ospo_core.evaluation.promotion import evaluation_extra
from ospo_core.report.formats import verdict
from ospo_core.rounds.plan import apply_decision, with_answers
from ospo_core.schema import CHILD, PARENT, StageName
from ospo_core.stages import STAGES
from ospo_core.stages.model_ref import current_model
from tests.support.evaluation_rows import evaluation_rows
from tests.support.manifests import made

PROMPTS = 30


def evaluation(metric: str = "people", wanted: int = 12, margin: float = 0.0, better: bool = True) -> Manifest:
    rows = [evaluation_rows(label, [right] * PROMPTS) for label, right in ((PARENT, False), (CHILD, better))]
    promotion = PromotionConfig.model_validate({"metric": metric, "people_prompts": wanted, "margin": margin})
    return made(StageName.EVALUATION, 8, **evaluation_extra(*rows, EvaluationConfig(bootstrap=50), promotion))


def answer(storage: Storage, manifest: Manifest, answers: list[str], first: int = 0) -> None:
    for number, given in enumerate(answers, start=first):
        fields: dict[str, Any] = {"evaluation": manifest.fingerprint, "session": 0, "number": number + 1, "person": ""}
        fields |= {"kind": "preference", "item_id": f"{number}", "sample": 0, "guidance": 1.0, "model": ""}
        store_label(storage, {**fields, "question": "", "left": "parent", "answer": given})


@pytest.mark.parametrize(
    ("answers", "expected", "words"),
    [
        ([], "waiting", "12 more prompts"),
        (["child"] * 11, "waiting", "1 more prompts"),
        (["child"] * 12, "promoted", "100.0 % of 12 prompts"),
        (["child"] * 10 + ["tie"] * 2, "promoted", "91.7 % of 12 prompts"),
        (["child"] * 7 + ["parent"] * 5, "refused", "does not lie above 50.0 %"),
        (["parent"] * 12, "refused", "0.0 % of 12 prompts"),
    ],
)
def test_enough_answers_decide(tmp_path: Path, answers: list[str], expected: str, words: str) -> None:
    storage, manifest = Storage(str(tmp_path)), evaluation()
    assert awaits_people(manifest) and verdict(manifest.extra["decision"]) == "waiting"
    answer(storage, manifest, answers)
    decided = decided_by_people(storage, manifest)
    assert verdict(decided.extra["decision"]) == expected and words in decided.extra["decision"]["reason"]
    assert (decided.fingerprint, decided.digest) == (manifest.fingerprint, manifest.digest)
    assert decided.extra["decision"]["metric"] == "oracle" and decided.extra["decision"]["overall"]["child"] == 1.0


def test_the_margin_and_the_number_of_prompts_count(tmp_path: Path) -> None:
    storage, strict = Storage(str(tmp_path)), evaluation(margin=0.6)
    answer(storage, strict, ["child"] * 12)  # Wilson: at least 75.8 %, a net preference of 0.51
    assert verdict(decided_by_people(storage, strict).extra["decision"]) == "refused"
    assert verdict(decided_by_people(storage, evaluation(margin=0.5)).extra["decision"]) == "promoted"
    assert verdict(decided_by_people(storage, strict, wanted=13).extra["decision"]) == "waiting"
    assert evaluation(wanted=1000).extra["people"]["prompts"] == PROMPTS


def in_categories(drop: float = 0.1, known: bool = True) -> Manifest:
    """An evaluation of 60 prompts of category `good`, numbered from 0, and 20 of category `poor`, from 100."""
    sizes = {"good": (0, 60), "poor": (100, 20)}
    sides = []
    for label in (PARENT, CHILD):
        rows = []
        for category, (start, count) in sizes.items():
            named = evaluation_rows(label, [True] * count, category)
            rows += [{**row, "item_id": str(start + number)} for number, row in enumerate(named)]
        sides.append(rows)
    promotion = PromotionConfig(metric="people", people_prompts=1, max_category_drop=drop)
    extra = evaluation_extra(sides[0], sides[1], EvaluationConfig(bootstrap=50), promotion)
    if not known:
        extra["people"].pop("categories")  # as an earlier version wrote it
    return made(StageName.EVALUATION, 8, **extra)


@pytest.mark.parametrize(
    ("poor", "drop", "known", "expected"),
    [
        (["parent"] * 20, 0.1, True, "refused"),  # Wilson's upper end for 0 of 20 is 16.1 %
        (["parent"] * 20, 0.7, True, "promoted"),  # a net preference of -0.68 is within the drop
        (["parent"] * 2, 0.1, True, "promoted"),  # 0 of 2: up to 65.8 %, so a drop cannot be told
        (["parent"] * 6 + ["child"] * 5, 0.0, True, "promoted"),
        (["tie"] * 20, 0.0, True, "promoted"),
        ([], 0.0, True, "promoted"),
        (["parent"] * 20, 0.1, False, "promoted"),
    ],
)
def test_a_category_that_is_worse_for_certain_refuses(
    tmp_path: Path, poor: list[str], drop: float, known: bool, expected: str
) -> None:
    storage, manifest = Storage(str(tmp_path)), in_categories(drop, known)
    answer(storage, manifest, ["child"] * 60)
    answer(storage, manifest, poor, first=100)
    decided = decided_by_people(storage, manifest).extra["decision"]
    assert verdict(decided) == expected, decided["reason"]
    if expected == "refused":
        assert "less than 45.0 % of the prompts: poor in 0.0 % of 20 prompts" in decided["reason"]


@pytest.mark.parametrize("metric", ["auto", "oracle", "vqa"])
def test_other_metrics_decide_at_once_whatever_people_say(tmp_path: Path, metric: str) -> None:
    storage, manifest = Storage(str(tmp_path)), evaluation(metric)
    answer(storage, manifest, ["parent"] * 20)
    assert not awaits_people(manifest) and decided_by_people(storage, manifest) is manifest
    assert "people" not in manifest.extra and "waiting" not in manifest.extra["decision"]


def test_answers_promote_the_child(tmp_path: Path) -> None:
    storage, manifest = Storage(str(tmp_path)), evaluation()
    facts = {"model_digest": "c" * 64, "merged": "models/c", "parent_digest": "a" * 64}
    round_ = {StageName.TRAINING: made(StageName.TRAINING, 7, **facts), StageName.EVALUATION: manifest}
    promotion = apply_decision(storage, with_answers(storage, round_))
    assert (
        not promotion.changed and promotion.reason == "people have not decided yet" and current_model(storage) is None
    )
    answer(storage, manifest, ["child"] * 12)
    assert apply_decision(storage, with_answers(storage, round_)).changed
    pointer = current_model(storage)
    assert pointer is not None and pointer.digest == "c" * 64


def test_how_many_are_waited_for_changes_no_result() -> None:
    """The identities of evaluations are those of before there was this option."""
    few, many = (
        RoundConfig.model_validate({"name": "x", "promotion": {"metric": "people", "people_prompts": count}})
        for count in (5, 50)
    )
    stage = STAGES[StageName.EVALUATION]
    assert stage.fields(few) == stage.fields(many)
    assert set(stage.fields(few)["promotion"]) == {"metric", "margin", "max_category_drop"}
