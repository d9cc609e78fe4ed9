"""The plan says what is cached, would run, waits or is damaged; nothing is computed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ospo_core.artifacts.storage import Storage
from ospo_core.rounds import Round
from ospo_core.rounds.plan import plan_round
from ospo_core.schema import StageName
from ospo_core.stages import STAGES
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
