"""Training that another deployment does: how its run ends is how the round's training ends.

There is no worker; a thread gives the deployment's run its final state, as a worker would.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Cancelled, Completed, Failed

from ospo_core.artifacts.manifest import Manifest, publish_manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.errors import ConfigError, OspoError, StageError, TrainingError
from ospo_core.rounds import Round
from ospo_core.schema import StageName
from tasks import remote_training
from tasks.remote_training import find_pairs, train_elsewhere
from tasks.task_options import opaque
from tests.support.rounds import made_up_model, small_round

PAIRS = Manifest(stage=StageName.PAIRS, fingerprint="a" * 64, version=1, rows=0, items_in=0)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_training, "_POLL_S", 0.1)


@pytest.fixture
def client(prefect_server: str) -> Iterator[SyncPrefectClient]:
    with SyncPrefectClient(api=prefect_server) as made:
        yield made


@pytest.fixture
def deployment(client: SyncPrefectClient) -> tuple[str, UUID]:
    """Return name and id of a deployment in a pool that has no worker."""
    pool = f"pool-{uuid4().hex[:8]}"
    client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
    flow_id = client.create_flow_from_name("train")
    return f"train/{pool}", client.create_deployment(flow_id=flow_id, name=pool, work_pool_name=pool)


def round_in(root: Path, deployment: str) -> Round:
    config = small_round(root, execution={"training_deployment": deployment})
    return Round(config, Storage(config.storage.root), made_up_model(config))


def in_a_flow(wanted: Round) -> Manifest:
    run = wanted.bind(StageName.TRAINING, {StageName.PAIRS: PAIRS})

    @flow
    def a_round() -> Manifest:
        return train_elsewhere(opaque(wanted), opaque(run))

    return a_round()


def end_its_run(client: SyncPrefectClient, deployment: UUID, state: State, first: Callable[[], object]) -> FlowRun:
    """Wait for the deployment's run, call `first`, and give the run its state."""
    chosen = DeploymentFilter(id=DeploymentFilterId(any_=[deployment]))
    deadline = time.monotonic() + 240
    while not (runs := client.read_flow_runs(deployment_filter=chosen)) and time.monotonic() < deadline:
        time.sleep(0.1)
    first()
    client.set_flow_run_state(runs[0].id, state, force=True)
    return runs[0]


def outcome(
    client: SyncPrefectClient,
    deployment: tuple[str, UUID],
    wanted: Round,
    state: State,
    first: Callable[[], object] = lambda: None,
) -> tuple[Manifest | OspoError, FlowRun]:
    """Return what the round's side gets when the deployment's run ends in a state, and that run."""
    with ThreadPoolExecutor(1) as thread:
        ending = thread.submit(end_its_run, client, deployment[1], state, first)
        try:
            return in_a_flow(wanted), ending.result()
        except OspoError as error:
            return error, ending.result()


def test_a_deployment_that_is_not_there_is_named(tmp_path: Path, prefect_server: str) -> None:
    with pytest.raises(ConfigError, match="no such deployment") as caught:
        in_a_flow(round_in(tmp_path, "train/nowhere"))
    assert (caught.value.field, caught.value.value) == ("execution.training_deployment", "train/nowhere")


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (Failed(message="TrainingError: the chosen log-probability has collapsed"), "ended Failed: .*has collapsed"),
        (Cancelled(message="by a person"), "ended Cancelled: by a person"),
    ],
)
def test_what_its_run_says_is_what_the_round_says(
    tmp_path: Path, client: SyncPrefectClient, deployment: tuple[str, UUID], state: State, words: str
) -> None:
    error, run = outcome(client, deployment, round_in(tmp_path, deployment[0]), state)
    assert isinstance(error, TrainingError)
    with pytest.raises(TrainingError, match=words):
        raise error
    assert run.name in str(error) and deployment[0] in error.field


def test_a_completed_run_without_a_result_here_used_another_storage(
    tmp_path: Path, client: SyncPrefectClient, deployment: tuple[str, UUID]
) -> None:
    wanted = round_in(tmp_path, deployment[0])
    error, _ = outcome(client, deployment, wanted, Completed())
    assert isinstance(error, StageError) and "not in this storage" in str(error)
    assert (error.field, error.value) == ("storage.root", wanted.config.storage.root)


def test_its_result_is_found_by_fingerprint_and_its_run_knows_what_to_train(
    tmp_path: Path, client: SyncPrefectClient, deployment: tuple[str, UUID]
) -> None:
    wanted = round_in(tmp_path, deployment[0])
    made = Manifest(
        stage=StageName.TRAINING,
        fingerprint=wanted.bind(StageName.TRAINING, {StageName.PAIRS: PAIRS}).fingerprint,
        version=1,
        rows=0,
        items_in=0,
    )
    found, run = outcome(client, deployment, wanted, Completed(), lambda: publish_manifest(wanted.storage, made))
    assert isinstance(found, Manifest) and found.fingerprint == made.fingerprint
    assert run.parameters["start"] == wanted.model.model_dump()
    assert run.parameters["config"] == wanted.config.model_dump(mode="json")
    assert run.parent_task_run_id, "a part of the round's run in the UI"


def test_training_by_itself_needs_pairs(tmp_path: Path, prefect_server: str) -> None:
    config = small_round(tmp_path)
    with pytest.raises(StageError, match=r"no pairs to train on: stage prompts is not done.*ospo stage pairs"):
        find_pairs.fn(Round(config, Storage(config.storage.root), made_up_model(config)))
    alone = small_round(tmp_path, training={"imported_pairs": "0" * 64, "own_pairs": False})
    assert find_pairs.fn(Round(alone, Storage(alone.storage.root), made_up_model(alone))) == {}
