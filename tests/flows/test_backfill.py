"""Backfills through Prefect: beside the published result, what is out of date, and recomputing the rest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.backfill import backfill
from flows.round import self_improvement_round
from ospo_core.artifacts.storage import Storage
from ospo_core.config import RoundConfig
from ospo_core.errors import ConfigError, StageError
from ospo_core.rounds import Round
from ospo_core.rounds.plan import plan_round
from ospo_core.rounds.records import record_round, round_ids, stage_records
from ospo_core.schema import StageName
from ospo_core.stages import STAGES
from ospo_core.stages.model_ref import starting_model
from tests.support.fake_stages import NumbersStage, SquaresStage
from tests.support.rounds import model_files, small_round

LAST = StageName.PERTURBATIONS


@pytest.fixture(autouse=True)
def stages(prefect_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[NumbersStage, SquaresStage]]:
    numbers, squares = NumbersStage(), SquaresStage()
    monkeypatch.setitem(STAGES, StageName.PROMPTS, numbers)
    monkeypatch.setitem(STAGES, LAST, squares)
    yield numbers, squares


@pytest.fixture
def config(tmp_path: Path) -> RoundConfig:
    """A round of which two stages are done."""
    model_files(tmp_path / "model")
    config = small_round(tmp_path)
    self_improvement_round(config, until=LAST)
    return config


def current(config: RoundConfig) -> dict[StageName, str]:
    storage = Storage(config.storage.root)
    (identity,) = round_ids(storage)
    return {stage: record.fingerprint for stage, record in stage_records(storage, identity).items()}


def test_stage_that_is_there_is_found_and_refresh_makes_a_new_attempt(
    config: RoundConfig, stages: tuple[NumbersStage, SquaresStage]
) -> None:
    before = current(config)
    found = backfill(config, StageName.PROMPTS)
    assert not found.ran and current(config) == before
    storage = Storage(config.storage.root)
    published = {key: storage.read(key) for key in storage.list("prompts")}
    again = backfill(config, StageName.PROMPTS, refresh=True)
    assert again.ran and again.outdated == (), "the same content leaves later stages valid"
    assert current(config)[StageName.PROMPTS] == again.manifest.fingerprint != before[StageName.PROMPTS]
    assert {key: storage.read(key) for key in published} == published
    third = backfill(config, StageName.PROMPTS, refresh=True)
    assert third.manifest.ingredients["redo"]["attempt"] == 2


def test_some_items_are_done_over_and_the_next_round_goes_on_from_them(
    config: RoundConfig, stages: tuple[NumbersStage, SquaresStage]
) -> None:
    _, squares = stages
    squares.offset = 100
    part = backfill(config, LAST, where="item_id == 'item2'")
    assert (part.manifest.rows, part.manifest.counts["kept_rows"], squares.computed["part-00002"]) == (3, 2, 2)
    assert squares.computed["part-00001"] == 1
    again = self_improvement_round(config, until=LAST)
    assert again.ran == () and again.manifests[LAST] == part.manifest


def test_later_stages_are_named_and_cascade_does_them_over(
    config: RoundConfig, stages: tuple[NumbersStage, SquaresStage]
) -> None:
    before = current(config)
    stages[0].offset = 7
    left = backfill(config, StageName.PROMPTS, refresh=True)
    assert left.outdated == (LAST,) and left.cascade is None
    assert current(config)[LAST] == before[LAST], "it is still the round's last result"
    done = backfill(config, StageName.PROMPTS, cascade=True)
    assert not done.ran and done.outdated == () and done.cascade is not None and done.cascade.ran == (LAST,)
    assert current(config)[LAST] == done.cascade.manifests[LAST].fingerprint != before[LAST]
    plans, _ = plan_round(Round(config, Storage(config.storage.root), done.cascade.model))
    assert plans[0].note == "recomputed, attempt 1" and plans[1].status == "cached"


def test_round_is_named_by_its_id_and_keeps_its_own_configuration(config: RoundConfig, tmp_path: Path) -> None:
    storage = Storage(config.storage.root)
    (identity,) = round_ids(storage)
    other = config.model_copy(update={"seed": 99})
    done = backfill(other, StageName.PROMPTS, round=identity[:6], refresh=True)
    assert done.round == identity and done.manifest.ingredients["fields"] == {"seed": 0}
    assert round_ids(storage) == [identity]


def test_requests_that_cannot_be_met_change_nothing(config: RoundConfig) -> None:
    before, storage = current(config), Storage(config.storage.root)
    with pytest.raises(StageError, match="none of the 3 prompts satisfies it"):
        backfill(config, LAST, where="category = 'nothing'")
    with pytest.raises(ConfigError, match="where: is not a condition"):
        backfill(config, LAST, where="nope = 1")
    with pytest.raises(StageError, match="the earlier stage questions is not done"):
        backfill(config, StageName.IMAGES)
    with pytest.raises(ConfigError, match="is not the id of one round"):
        backfill(config, LAST, round="zzzz")
    alone = record_round(Round(config, storage, starting_model(config, storage), "evaluation"))
    with pytest.raises(ConfigError, match="evaluation of one model"):
        backfill(config, LAST, round=alone.id)
    (identity,) = [one for one in round_ids(storage) if one != alone.id]
    assert {stage: record.fingerprint for stage, record in stage_records(storage, identity).items()} == before
