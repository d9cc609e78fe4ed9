"""The plan says what is cached, would run, waits or is damaged; nothing is computed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ospo_core.artifacts.storage import Storage
from ospo_core.errors import DamagedArtifactError
from ospo_core.rounds import Round
from ospo_core.rounds.plan import applied_promotion, apply_decision, finished_round, plan_round
from ospo_core.rounds.records import record_round
from ospo_core.schema import StageName
from ospo_core.stages.model_ref import current_model
from tests.support.fake_stages import NumbersStage, two_stages_only
from tests.support.manifests import generation, made
from tests.support.rounds import finished, made_up_model, small_round


@pytest.fixture
def numbers() -> Iterator[NumbersStage]:
    with two_stages_only() as first:
        yield first


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


def test_a_round_is_finished_once_it_is_recorded_and_its_files_are_whole(tmp_path: Path, numbers: NumbersStage) -> None:
    round = round_in(tmp_path)
    first = finished(round.bind(StageName.PROMPTS, {}))
    assert finished_round(round, StageName.PROMPTS) is None, "no record refers to the result"
    record_round(round)
    done = finished_round(round, StageName.PROMPTS)
    assert done is not None and done.manifests == {StageName.PROMPTS: first} and done.promotion is None
    assert finished_round(round) is None, "another stage is left"
    finished(round.bind(StageName.PERTURBATIONS, {StageName.PROMPTS: first}))
    assert finished_round(round) is not None
    shard = tmp_path / "store" / first.prefix / first.shards[0].file
    shard.write_bytes(b"PAR1" + shard.read_bytes()[4:-4] + b"1RAP")
    with pytest.raises(DamagedArtifactError, match=first.shards[0].file):
        finished_round(round)


@pytest.mark.parametrize("promote", [True, False])
def test_a_decision_is_applied_once_and_then_known(tmp_path: Path, promote: bool) -> None:
    storage, training = Storage(str(tmp_path)), generation(1, "0" * 64)[-1]
    training = training.model_copy(update={"extra": {**training.extra, "merged": f"models/{'1' * 64}"}})
    evaluation = made(StageName.EVALUATION, 2, decision={"promote": promote})
    manifests = {StageName.TRAINING: training, StageName.EVALUATION: evaluation}
    assert (applied_promotion(storage, manifests) is None) == promote and storage.list() == []
    assert apply_decision(storage, manifests).changed == promote
    known = applied_promotion(storage, manifests)
    assert known is not None and not known.changed
    current = current_model(storage)
    assert (current is not None and current.digest == "1" * 64) == promote
