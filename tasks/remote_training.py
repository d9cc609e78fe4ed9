"""Training by a deployment of its own, e.g. in a GPU work pool: the side of the round, and the side of the deployment.

Only names are exchanged: both sides find the manifests by fingerprint in the shared storage.
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
from ospo_core.errors import ConfigError, StageError, TrainingError
from ospo_core.rounds import Round
from ospo_core.rounds.plan import plan_round
from ospo_core.schema import StageName
from ospo_core.stages import StageRun
from ospo_core.stages.attempts import Attempt
from ospo_core.stages.progress import Event, emit
from tasks.task_options import RETRIED, UNCACHED

_POLL_S = 2.0
_SILENCE_S = 600.0
"""Seconds without an answer from the server after which the round gives up."""


@task(task_run_name="{run.stage.name}: by {run.config.execution.training_deployment}", **UNCACHED)
def train_elsewhere(round: Round, run: StageRun, request: Attempt | None = None) -> Manifest:
    """Start the training deployment, wait for it, and return what it published.

    This task is not retried: the deployment's own tasks are, and a retry of the round starts the deployment again,
    which resumes from its last checkpoint. If this task ends before the deployment's run, it cancels that run.
    A `request` repeats the training although there is a result.

    Raises:
        ConfigError: there is no such deployment.
        TrainingError: its run failed or was cancelled; the message is that of the run.
        StageError: its run was completed, but its result is not in the storage.
    """
    name, deployment = run.stage.name, str(run.config.execution.training_deployment)
    emit(Event("started", name, total=1))
    flow_run = _start(round, request, deployment)
    get_run_logger().info("training in flow run %r of %s", flow_run.name, deployment)
    with get_client(sync_client=True) as client:
        try:
            ended = _wait(client, flow_run)
        except BaseException:  # also when the round is cancelled, which is no Exception: its training must stop too
            _cancel(client, flow_run)
            raise
    if ended.state is None or not ended.state.is_completed():
        outcome = f"{ended.state.name}: {ended.state.message}" if ended.state else "without a state"
        raise TrainingError(
            f"the training's flow run {ended.name!r} ended {outcome}",
            field=f"deployment {deployment}",
            remedy="See its logs in the Prefect UI; a retry of the round resumes from the last checkpoint",
        )
    manifest = run.find()
    if manifest is None:
        raise StageError(
            f"the training's flow run {ended.name!r} was completed, but its result is not in this storage",
            field="storage.root",
            value=run.config.storage.root,
            remedy="Use a storage that both machines share, and deploy the same version of the project on both",
        )
    emit(Event("finished", name))
    return manifest


@task(task_run_name="find pairs", **UNCACHED, **RETRIED)
def find_pairs(round: Round) -> dict[StageName, Manifest]:
    """Return the manifest of the pairs that a round has made; their bytes are verified when they are read.

    A round that trains on imported pairs alone has none.

    Raises:
        StageError: a stage before the training is not done.
    """
    if StageName.PAIRS not in round.stages:
        return {}
    plans, manifests = plan_round(round)
    missing = [plan.stage for plan in plans if plan.stage not in manifests]
    if StageName.PAIRS not in manifests:
        raise StageError(
            f"there are no pairs to train on: stage {missing[0]} is not done",
            field="storage.root",
            value=round.config.storage.root,
            remedy="Run `ospo stage pairs` with this configuration first, or check which model it starts from",
        )
    return {StageName.PAIRS: manifests[StageName.PAIRS]}


def _start(round: Round, request: Attempt | None, deployment: str) -> FlowRun:
    """Start a run of the deployment as a child of this flow run."""
    parameters = {
        "config": round.config.model_dump(mode="json"),
        "refresh": request is not None,
        "overrides": list(request.overrides) if request is not None else [],
        "start": round.model.model_dump(mode="json"),
    }
    try:
        flow_run = run_deployment(deployment, parameters=parameters, timeout=0)
    except ObjectNotFound as error:
        raise ConfigError(
            "the server has no such deployment",
            field="execution.training_deployment",
            value=deployment,
            remedy="Register it with `ospo deploy`, or correct the name: flow/deployment",
        ) from error
    if not isinstance(flow_run, FlowRun):
        raise TypeError("a deployment's run was awaited in synchronous code")
    return flow_run


def _wait(client: SyncPrefectClient, run: FlowRun) -> FlowRun:
    """Return the run when it has ended; tolerate a server that does not answer for a while."""
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


def _cancel(client: SyncPrefectClient, run: FlowRun) -> None:
    """Ask the server to cancel the run; if that fails, the server still cancels the children of a cancelled run."""
    try:
        client.set_flow_run_state(run.id, Cancelling(message="The round that waited for this training has ended."))
    except httpx.HTTPError as error:
        get_run_logger().warning("flow run %r could not be cancelled: %s", run.name, error)
