"""Tables of the terminal hold the figures they are given."""

from __future__ import annotations

import pytest

from ospo import output
from ospo_core.artifacts.manifest import Manifest
from ospo_core.rounds.estimates import Work
from ospo_core.rounds.plan import StagePlan
from ospo_core.schema import StageName
from ospo_core.stages.model_ref import ModelPointer, ModelRef, Promotion

GROUP = {
    "name": "layout",
    "prompts": 40,
    **{"parent": 0.4, "parent_low": 0.3, "parent_high": 0.5},
    **{"child": 0.6, "child_low": 0.5, "child_high": 0.7},
    **{"difference": 0.2, "difference_low": 0.1, "difference_high": 0.3},
}
DECISION = {
    "promote": True,
    "reason": "better by 20 points",
    "metric": "oracle",
    "overall": {**GROUP, "name": "all"},
    "categories": [GROUP],
}


def manifest(stage: StageName, **fields: object) -> Manifest:
    base = {"stage": stage, "fingerprint": "f" * 64, "version": 1, "rows": 8, "items_in": 10, "drops": {"duplicate": 2}}
    return Manifest.model_validate({**base, **fields})


def test_round_shows_stages_accuracy_decision_and_report(capsys: pytest.CaptureFixture[str]) -> None:
    manifests = {
        StageName.PROMPTS: manifest(StageName.PROMPTS),
        StageName.EVALUATION: manifest(StageName.EVALUATION, extra={"decision": DECISION}),
    }
    promotion = Promotion(changed=True, reason="promoted")
    output.show_round(manifests, [StageName.PROMPTS], promotion, "/somewhere/reports/evaluation-0.html")
    shown = capsys.readouterr().out
    for words in (
        "duplicate",
        "cached",
        "0.400 (0.300 to 0.500)",
        "0.600 (0.500 to 0.700)",
        "+0.200",
        "Promoted",
        "better by 20 points",
        "/somewhere/reports/evaluation-0.html",
    ):
        assert words in shown


def test_accuracy_plan_and_models_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    groups = {"all": {"prompts": 4, "accuracy": 0.5, "low": 0.2, "high": 0.8}}
    output.show_accuracy("some model", {"metric": "vqa", "judge": "the parent", "groups": groups})
    output.show_plan([StagePlan(stage=StageName.IMAGES, status="run", fingerprint="abc", shards_done=3)])
    made_by = {"training": "1" * 64, "evaluation": "2" * 64}
    pointer = ModelPointer(digest="c" * 64, key="models/c", parent="b" * 64, **made_by)
    start, counts = ModelRef(digest="a" * 64, source="embedded:shapes"), {StageName.PROMPTS: 2, StageName.IMAGES: 0}
    output.show_state("/root", start, pointer, counts)
    shown = capsys.readouterr().out
    for words in ("0.200 to 0.800", "images", "run", "c" * 12, "b" * 12, "embedded:shapes", "prompts 2"):
        assert words in shown
    assert "images 0" not in shown


def test_plan_shows_the_work_of_what_is_missing_and_its_sum(capsys: pytest.CaptureFixture[str]) -> None:
    plans = [
        StagePlan(stage=StageName.PROMPTS, status="cached", rows=4),
        StagePlan(stage=StageName.IMAGES, status="run"),
        StagePlan(stage=StageName.TRAINING, status="waits"),
    ]
    work = {StageName.PROMPTS: Work(tokens=99), StageName.IMAGES: Work(images=96_012, bytes=30_000_000_000)}
    work[StageName.TRAINING] = Work(pairs=64_000)
    output.show_plan(plans, work, {StageName.IMAGES: 36_000.0}, gpus=8)
    shown = capsys.readouterr().out
    for words in ("96\N{NARROW NO-BREAK SPACE}012 images", "1 h 15 min", "8 GPUs, 10.0 GPU-hours", "about 30 GB"):
        assert words in shown
    assert "Not included: training" in shown and "99" not in shown
    output.show_plan(plans[:1], work, {})
    assert "Everything is cached" in capsys.readouterr().out
