"""A stage as Prefect runs it: mapped shards, "Cached" states, resuming, refreshing, failing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.runtime import flow_run

from flows.steps import run_step
from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.errors import StageError
from ospo_core.rounds import Round
from ospo_core.schema import StageName
from ospo_core.stages import STAGES
from ospo_core.stages.attempts import Attempt
from ospo_core.stages.progress import Event, listening
from tasks.stage_tasks import compute_shard
from tests.support.fake_stages import NumbersStage, ShardSpec, SquaresStage
from tests.support.rounds import made_up_model, small_round

FLOW_RUNS: list[UUID] = []


@pytest.fixture(autouse=True)
def fakes(prefect_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[NumbersStage]:
    numbers = NumbersStage()
    monkeypatch.setitem(STAGES, StageName.PROMPTS, numbers)
    monkeypatch.setitem(STAGES, StageName.PERTURBATIONS, SquaresStage())
    monkeypatch.setattr(compute_shard, "retry_delay_seconds", 0)
    yield numbers


@flow
def two_stages(round: Round, refresh: bool = False) -> tuple[Manifest, bool, Manifest, bool]:
    FLOW_RUNS.append(UUID(str(flow_run.id)))
    numbers, ran = run_step(round, StageName.PROMPTS, {}, Attempt() if refresh else None)
    return numbers, ran, *run_step(round, StageName.PERTURBATIONS, {StageName.PROMPTS: numbers})


def round_in(root: Path) -> Round:
    config = small_round(root)
    return Round(config, Storage(config.storage.root), made_up_model(config))


def state_names() -> Counter[str]:
    """Names of the last flow run's task states."""
    with get_client(sync_client=True) as client:
        runs = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[FLOW_RUNS[-1]])))
    return Counter(run.state.name for run in runs if run.state is not None)


def test_second_run_is_cached_and_says_so(tmp_path: Path, fakes: NumbersStage) -> None:
    events: list[Event] = []
    with listening(events.append):
        first = two_stages(round_in(tmp_path))
    assert (first[1], first[3]) == (True, True)
    assert [event.done for event in events if event.stage is StageName.PROMPTS] == [0, 1, 2, 2, 3, 0]
    second = two_stages(round_in(tmp_path))
    assert (second[0], second[1], second[2], second[3]) == (first[0], False, first[2], False)
    assert state_names() == {"Cached": 2}
    assert sum(fakes.computed.values()) == 3


def test_refresh_computes_one_stage_and_later_ones_stay_cached(tmp_path: Path, fakes: NumbersStage) -> None:
    two_stages(round_in(tmp_path))
    again = two_stages(round_in(tmp_path), refresh=True)
    assert (again[1], again[3]) == (True, False)
    assert set(fakes.computed.values()) == {2}


def test_hiccup_is_retried_and_finished_shards_are_kept(tmp_path: Path, fakes: NumbersStage) -> None:
    left = [2]

    def hiccup(spec: ShardSpec) -> None:
        if spec.index == 1 and left[0]:
            left[0] -= 1
            raise OSError("the disk was away")

    fakes.trouble = hiccup
    two_stages(round_in(tmp_path))
    assert set(fakes.computed.values()) == {1}


def test_mistake_ends_the_flow_with_its_own_error_and_the_next_run_resumes(tmp_path: Path, fakes: NumbersStage) -> None:
    def mistake(spec: ShardSpec) -> None:
        if spec.index == 1:
            raise StageError("this shard cannot work", field="stage prompts")

    fakes.trouble = mistake
    with pytest.raises(StageError, match="this shard cannot work"):
        two_stages(round_in(tmp_path))
    assert fakes.computed == {"part-00000": 1}
    fakes.trouble = lambda spec: None
    resumed = two_stages(round_in(tmp_path))
    assert resumed[0].rows == 3 and fakes.computed["part-00000"] == 1
    assert state_names()["Cached"] == 1


class Watched(list[int]):
    """Counts how often somebody looks through it."""

    looks = 0

    def __iter__(self) -> Iterator[int]:
        self.looks += 1
        return super().__iter__()


def test_prefect_does_not_look_through_manifests(tmp_path: Path) -> None:
    numbers = two_stages(round_in(tmp_path))[0]
    watched = Watched([1])
    above = numbers.model_copy(update={"extra": {"watched": watched}})

    @flow
    def one_stage() -> bool:
        return run_step(round_in(tmp_path), StageName.PERTURBATIONS, {StageName.PROMPTS: above}, Attempt())[1]

    assert one_stage() and watched.looks == 0
