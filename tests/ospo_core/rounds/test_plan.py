"""The plan says what is cached, what would run, what waits, and what is damaged, without computing anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from ospo_core.artifacts.storage import Storage
from ospo_core.rounds.plan import plan_round
from ospo_core.schema import StageName
from ospo_core.stages import STAGES
from ospo_core.stages.runner import next_shards, run_one_shard, run_stage
from tests.support.fake_stages import NumbersStage, SquaresStage
from tests.support.rounds import ScriptedResources, context, made_up_model, small_round


@pytest.fixture
def numbers(monkeypatch: pytest.MonkeyPatch) -> NumbersStage:
    for name in list(STAGES)[2:]:
        monkeypatch.delitem(STAGES, name)
    monkeypatch.setitem(STAGES, StageName.PROMPTS, NumbersStage())
    monkeypatch.setitem(STAGES, StageName.PERTURBATIONS, SquaresStage())
    stage = STAGES[StageName.PROMPTS]
    assert isinstance(stage, NumbersStage)
    return stage


def test_plan_follows_a_round_from_nothing_to_cached(tmp_path: Path, numbers: NumbersStage) -> None:
    config = small_round(tmp_path)
    storage, model = Storage(config.storage.root), made_up_model(config)

    def statuses(*refresh: StageName) -> list[str]:
        return [plan.status for plan in plan_round(config, storage, model, refresh)[0]]

    assert statuses() == ["run", "waits"]
    ctx = context(config, ScriptedResources())
    run_one_shard(ctx, numbers, next_shards(ctx, numbers, [])[0])
    assert plan_round(config, storage, model)[0][0].shards_done == 1
    made = run_stage(ctx, numbers)
    assert statuses() == ["cached", "run"]
    run_stage(context(config, ScriptedResources(), {StageName.PROMPTS: made}), STAGES[StageName.PERTURBATIONS])
    plans, manifests = plan_round(config, storage, model)
    assert [plan.status for plan in plans] == ["cached", "cached"] and len(manifests) == 2
    assert statuses(StageName.PROMPTS) == ["run", "cached"]
    assert sum(numbers.computed.values()) == 3


def test_damaged_manifest_is_shown_as_such(tmp_path: Path, numbers: NumbersStage) -> None:
    config = small_round(tmp_path)
    storage = Storage(config.storage.root)
    made = run_stage(context(config, ScriptedResources()), numbers)
    storage.write(f"{made.prefix}/manifest.json", b"{}")
    plans, manifests = plan_round(config, storage, made_up_model(config))
    assert [plan.status for plan in plans] == ["damaged", "waits"] and not manifests
    assert "manifest.json" in plans[0].note
