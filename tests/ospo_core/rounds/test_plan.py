"""The plan says what is cached, would run, waits or is damaged, and how long it would take; nothing is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.rounds import Round
from ospo_core.rounds.plan import estimate_seconds, plan_round
from ospo_core.schema import StageName
from ospo_core.stages import STAGES
from ospo_core.stages.run import content_of
from tests.support.fake_stages import NumbersStage, SquaresStage
from tests.support.rounds import finished, made_up_model, small_round


@pytest.fixture
def numbers(monkeypatch: pytest.MonkeyPatch) -> NumbersStage:
    for name in list(STAGES)[2:]:
        monkeypatch.delitem(STAGES, name)
    monkeypatch.setitem(STAGES, StageName.PROMPTS, NumbersStage())
    monkeypatch.setitem(STAGES, StageName.PERTURBATIONS, SquaresStage())
    stage = STAGES[StageName.PROMPTS]
    assert isinstance(stage, NumbersStage)
    return stage


def round_in(root: Path) -> Round:
    config = small_round(root)
    return Round(config, Storage(config.storage.root), made_up_model(config))


def test_plan_follows_a_round_from_nothing_to_cached(tmp_path: Path, numbers: NumbersStage) -> None:
    round = round_in(tmp_path)

    def statuses(*refresh: StageName) -> list[str]:
        return [plan.status for plan in plan_round(round, refresh)[0]]

    assert statuses() == ["run", "waits"]
    run = round.bind(StageName.PROMPTS, {})
    run.compute_shard(numbers.shards(run)[0])
    assert plan_round(round)[0][0].shards_done == 1
    made = finished(run)
    assert statuses() == ["cached", "run"]
    finished(round.bind(StageName.PERTURBATIONS, {StageName.PROMPTS: made}))
    plans, manifests = plan_round(round)
    assert [plan.status for plan in plans] == ["cached", "cached"] and len(manifests) == 2
    assert statuses(StageName.PROMPTS) == ["run", "cached"]
    assert sum(numbers.computed.values()) == 3


def test_damaged_manifest_is_shown_as_such(tmp_path: Path, numbers: NumbersStage) -> None:
    round = round_in(tmp_path)
    made = finished(round.bind(StageName.PROMPTS, {}))
    round.storage.write(f"{made.prefix}/manifest.json", b"{}")
    plans, manifests = plan_round(round)
    assert [plan.status for plan in plans] == ["damaged", "waits"] and not manifests
    assert "manifest.json" in plans[0].note


def past(stage: StageName, seconds: float, rows: int, *upstream: Manifest, **more: Any) -> Manifest:
    ingredients = {"upstream": {one.stage.value: content_of(one) for one in upstream}, **more.pop("ingredients", {})}
    name = f"{stage}-{seconds}"
    return Manifest(
        stage=stage, fingerprint=name, version=1, rows=rows, items_in=0, ingredients=ingredients, seconds=seconds,
        extra={"digest": name}, **more,
    )  # fmt: skip


def test_stages_are_scaled_by_prompts_sequences_and_pictures(tmp_path: Path) -> None:
    prompts = past(StageName.PROMPTS, 10.0, 100)
    images = past(StageName.IMAGES, 50.0, 600, prompts)
    slower = past(StageName.IMAGES, 150.0, 600, prompts)
    fields = {"fields": {"training": {"batch_size": 4, "accumulation": 5}}}
    training = past(StageName.TRAINING, 40.0, 1, ingredients=fields, counts={"steps": 10.0})
    evaluation = past(StageName.EVALUATION, 8.0, 80, counts={"images": 80.0})
    config = small_round(tmp_path)
    found = estimate_seconds(config, [prompts, images, slower, training, evaluation])
    assert found == {
        StageName.PROMPTS: pytest.approx(10 / 100 * 8),
        StageName.IMAGES: pytest.approx(200 / 200 * 8),
        StageName.TRAINING: pytest.approx(40 / 200 * 4),  # 2 steps of 2
        StageName.EVALUATION: pytest.approx(8 / 80 * 8),  # 4 prompts, 2 models
    }


def test_stage_without_a_complete_past_result_has_no_estimate(tmp_path: Path) -> None:
    prompts = past(StageName.PROMPTS, 10.0, 100)
    part = past(StageName.IMAGES, 1.0, 600, prompts, ingredients={"redo": {"where": "category = 'layout'"}})
    orphan = past(StageName.SCORES, 1.0, 600)
    assert set(estimate_seconds(small_round(tmp_path), [prompts, part, orphan])) == {StageName.PROMPTS}
    assert estimate_seconds(small_round(tmp_path), []) == {}
