"""Tables of the terminal hold the figures they are given."""

from __future__ import annotations

import pytest

from ospo import output
from ospo_core.artifacts.manifest import Manifest
from ospo_core.prompts.probe import Probe
from ospo_core.rounds.estimates import Work
from ospo_core.rounds.garbage import Garbage
from ospo_core.rounds.lineage import Cost
from ospo_core.rounds.plan import StagePlan
from ospo_core.rounds.preflight import Finding
from ospo_core.schema import StageName, SubCategory
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


MARKUP = "/tmp/[/x][bold]:smile:\x1b[2J"


def test_texts_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """What looks like markup is no markup, and what would control the terminal does not."""
    group = {**GROUP, "name": MARKUP}
    decision = {**DECISION, "reason": MARKUP, "metric": MARKUP, "categories": [group]}
    manifests = {
        StageName.PROMPTS: manifest(StageName.PROMPTS, drops={MARKUP: 2}),
        StageName.EVALUATION: manifest(StageName.EVALUATION, extra={"decision": decision}),
    }
    figures = {"prompts": 4, "accuracy": 0.5, "low": 0.2, "high": 0.8}
    start = ModelRef(digest="5" * 64, source=MARKUP)
    found = Probe(SubCategory.COLOR_1, MARKUP, failures={MARKUP: 1}, examples={MARKUP: [MARKUP]})
    for show in (
        lambda: output.show_title(MARKUP),
        lambda: output.show_text(MARKUP),
        lambda: output.show_round(manifests, None, Promotion(changed=False, reason=MARKUP), MARKUP),
        lambda: output.show_accuracy(MARKUP, {"judge": MARKUP, "groups": {MARKUP: figures}}),
        lambda: output.show_plan([StagePlan(stage=StageName.IMAGES, status="run", note=MARKUP)]),
        lambda: output.show_state(MARKUP, start, None, {}),
        lambda: output.show_cost(MARKUP, {MARKUP: Cost()}),
        lambda: output.show_rounds(MARKUP, None, []),
        lambda: output.show_garbage(
            [Garbage(key=MARKUP, kind=MARKUP, why=MARKUP, files=1, size=1, modified=0.0)], [MARKUP], False
        ),
        lambda: output.show_finding(Finding(MARKUP, MARKUP, 1.0)),
        lambda: output.show_failures([found]),
    ):
        show()
        shown = capsys.readouterr().out
        assert "[/x][bold]" in shown and ":smile:" in shown and "\x1b" not in shown, shown
