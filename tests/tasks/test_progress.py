"""Bars in the UI: only for what takes long, moved rarely, and full only at the end."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import httpx
import pytest
from prefect import flow
from prefect.runtime import flow_run

from ospo_core.schema import StageName
from ospo_core.stages.progress import Event, emit
from tasks import progress
from tests.support.prefect_reading import artifacts_of, log_of


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Shares that bars were moved to, with the real functions behind."""
    seen: list[float] = []
    create, update = progress.create_progress_artifact, progress.update_progress_artifact

    def created(share: float, **options: Any) -> object:
        seen.append(share)
        return create(share, **options)

    def updated(identity: UUID, share: float, **options: Any) -> object:
        seen.append(share)
        return update(identity, share, **options)

    monkeypatch.setattr(progress, "create_progress_artifact", created)
    monkeypatch.setattr(progress, "update_progress_artifact", updated)
    return seen


def test_steps_of_training_fill_a_bar(prefect_server: str, moves: list[float]) -> None:
    @flow
    def train() -> UUID:
        with progress.progress_bar(StageName.TRAINING, "step", patience=0.0) as bar:
            for step in range(1, 201):
                emit(Event("advanced", StageName.TRAINING, step, 200, note="loss 1.5"))
            emit(Event("advanced", StageName.IMAGES, 1, 2))
            assert bar.shown == 95.0
        return UUID(str(flow_run.id))

    run = train()
    assert moves == [5.0 * share for share in range(1, 21)]
    artifact = artifacts_of(run)["ospo-training-progress"]
    assert (artifact.data, artifact.description) == (100.0, "training: done")


def test_shards_of_a_stage_are_counted_in_all_waves(prefect_server: str, moves: list[float]) -> None:
    @flow
    def images() -> UUID:
        with progress.progress_bar(StageName.IMAGES, "shard", patience=0.0):
            for done, total in ((0, 2), (1, 2), (2, 2), (3, 4)):
                emit(Event("advanced", StageName.IMAGES, done, total))
        return UUID(str(flow_run.id))

    run = images()
    assert moves == [50.0, 99.0, 100.0]
    assert artifacts_of(run)["ospo-images-shards"].data == 100.0


def test_what_is_quick_or_has_one_unit_gets_no_bar(moves: list[float]) -> None:
    with progress.progress_bar(StageName.IMAGES, "shard"):
        emit(Event("advanced", StageName.IMAGES, 1, 2))
    with progress.progress_bar(StageName.PAIRS, "shard", patience=0.0):
        emit(Event("advanced", StageName.PAIRS, 1, 1))
    assert moves == []


def test_server_that_is_away_stops_the_bar_only(prefect_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise httpx.ConnectError("the server went away: http://me:secret@server")

    monkeypatch.setattr(progress, "create_progress_artifact", refuse)

    @flow
    def images() -> UUID:
        with progress.progress_bar(StageName.IMAGES, "shard", patience=0.0):
            emit(Event("advanced", StageName.IMAGES, 1, 2))
        return UUID(str(flow_run.id))

    run = images()
    (line,) = [line for line in log_of(run, until="the server went away") if "No progress shown" in line]
    assert "secret" not in line
    assert "ospo-images-shards" not in artifacts_of(run)
