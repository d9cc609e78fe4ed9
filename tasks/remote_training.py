"""Training that a deployment does for a round, e.g. in a GPU work pool: what the round's side does, and the other's.

Only names cross the border: both sides find the manifests by fingerprint in the one storage.
"""

from __future__ import annotations

import time

import httpx
from prefect import get_run_logger, task
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling

from ospo_core.artifacts.manifest import Manifest
from ospo_core.config import RoundConfig
from ospo_core.errors import ConfigError, StageError, TrainingError
from ospo_core.rounds.plan import plan_round
from ospo_core.schema import StageName
from ospo_core.stages.model_ref import ModelRef
from ospo_core.stages.progress import Event, emit
from ospo_core.stages.redo import RedoRequest
from ospo_core.stages.runner import stage_manifest
from tasks.jobs import StageJob, storage_of
from tasks.retries import RETRIED, UNCACHED

_POLL_S = 2.0
_SILENCE_S = 600.0
"""How long the server may not answer before the round gives up, seconds."""


@task(task_run_name="{job.stage}: by {job.config.execution.training_deployment}", **UNCACHED)
def train_elsewhere(job: StageJob, request: RedoRequest | None = None) -> Manifest:
    """Start the training deployment, wait for it, and return what it has published.

    It is tried once: the deployment's own tasks are tried again, and a retry of the round starts it anew, where it
    goes on from its last checkpoint. Whatever ends this task before the deployment's run has ended cancels that run.

    Args:
        job: the training.
        request: train anew although it is cached.

    Raises:
        ConfigError: there is no such deployment.
        TrainingError: its run failed or was cancelled; the message is the run's.
        StageError: its run was completed, and the storage has no result of it.
    """
    emit(Event("started", job.stage, total=1))
    run = _start(job, request)
    get_run_logger().info("training in flow run %r of %s", run.name, job.elsewhere)
    with get_client(sync_client=True) as client:
        try:
            ended = _wait(client, run)
        except BaseException:  # also a cancelled round (not an Exception): its training must not go on without it
            _cancel(client, run)
            raise
    _check_completed(ended, job)
    manifest = stage_manifest(job.context(), job.implementation())
    if manifest is None:
        raise StageError(
            f"the training's flow run {ended.name!r} was completed, but its result is not in this storage",
            field="storage.root",
            value=job.config.storage.root,
            remedy="Use a storage that both machines share, and deploy the same version of the project on both",
        )
    emit(Event("finished", job.stage))
    return manifest


@task(task_run_name="find pairs", **UNCACHED, **RETRIED)
def find_pairs(config: RoundConfig, model: ModelRef) -> dict[StageName, Manifest]:
    """Return the manifest of the pairs that a round has made; their bytes are verified when they are read.

    Raises:
        StageError: a stage before the training is not done.
    """
    plans, manifests = plan_round(config, storage_of(config), model)
    missing = [plan.stage for plan in plans if plan.stage not in manifests]
    if StageName.PAIRS not in manifests:
        raise StageError(
            f"there are no pairs to train on: stage {missing[0]} is not done",
            field="storage.root",
            value=config.storage.root,
            remedy="Run `ospo stage pairs` with this configuration first, or check which model it starts from",
        )
    return {StageName.PAIRS: manifests[StageName.PAIRS]}


def _start(job: StageJob, request: RedoRequest | None) -> FlowRun:
    """Start a run of the deployment as a part of this flow run."""
    parameters = {
        "config": job.config.model_dump(mode="json"),
        "refresh": request is not None,
        "overrides": list(request.overrides) if request is not None else [],
        "start": job.model.model_dump(mode="json"),
    }
    try:
        run = run_deployment(str(job.elsewhere), parameters=parameters, timeout=0)
    except ObjectNotFound as error:
        raise ConfigError(
            "the server has no such deployment",
            field="execution.training_deployment",
            value=job.elsewhere,
            remedy="Register it with `ospo deploy`, or correct the name: flow/deployment",
        ) from error
    if not isinstance(run, FlowRun):
        raise TypeError("a deployment's run was awaited in synchronous code")
    return run


def _wait(client: SyncPrefectClient, run: FlowRun) -> FlowRun:
    """Return the run when it has ended; a server that does not answer for a while is waited for."""
    answered = time.monotonic()
    while run.state is None or not run.state.is_final():
        time.sleep(_POLL_S)
        try:
            run = client.read_flow_run(run.id)
            answered = time.monotonic()
        except httpx.TransportError:
            if time.monotonic() - answered > _SILENCE_S:
                raise
    return run


def _check_completed(ended: FlowRun, job: StageJob) -> None:
    """Raise TrainingError with the message of a run that was not completed."""
    state = ended.state
    if state is None or not state.is_completed():
        outcome = f"{state.name}: {state.message}" if state else "without a state"
        raise TrainingError(
            f"the training's flow run {ended.name!r} ended {outcome}",
            field=f"deployment {job.elsewhere}",
            remedy="See its logs in the Prefect UI; a retry of the round trains from the last checkpoint on",
        )


def _cancel(client: SyncPrefectClient, run: FlowRun) -> None:
    """Ask the server to cancel the run; where that fails, it still cancels the parts of a cancelled run itself."""
    try:
        client.set_flow_run_state(run.id, Cancelling(message="The round that waited for this training has ended."))
    except httpx.HTTPError as error:
        get_run_logger().warning("flow run %r could not be cancelled: %s", run.name, error)
