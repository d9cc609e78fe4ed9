"""The three tasks of every stage: look it up, compute a shard, publish. They wrap methods of `StageRun`.

The storage is the only cache: a task that finds its result there ends in a state named "Cached".
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, cast

from prefect import task
from prefect.assets import materialize
from prefect.client.schemas.objects import State
from prefect.states import Completed

from ospo_core.artifacts.manifest import Manifest, ShardEntry
from ospo_core.stages import Phase, ShardSpec, StageRun
from ospo_core.stages.run import find
from ospo_core.stages.workers import WorkerPool
from tasks.assets import MADE_BY, describe_results, only_named_sources, refer_to, results_of, sources_of
from tasks.credentials import use_credentials
from tasks.prefect_ui import show_cached, show_stage
from tasks.progress import progress_bar
from tasks.task_options import RETRIED, UNCACHED, opaque


def look_up(run: StageRun) -> Manifest | None:
    """Return the manifest of a stage that is done, in a task of its own; None if it is not done.

    Raises:
        DamagedArtifactError: the stage was published and is damaged; a refresh repairs that.
    """
    return cast("Manifest | None", _look_up(opaque(run), return_state=True).result())


@task(task_run_name="{run.stage.name}: look up", **UNCACHED, **RETRIED)
def _look_up(run: StageRun) -> State[Any] | None:
    manifest = find(run)
    if manifest is None:
        return None
    show_cached(manifest)
    refer_to(run, manifest)
    return Completed(name="Cached", message=manifest.prefix, data=manifest)


@task(task_run_name="{run.stage.name}: {spec.name}", **UNCACHED, **RETRIED)
def compute_shard(run: StageRun, spec: ShardSpec, workers: WorkerPool | None = None) -> ShardEntry | State[Any]:
    """Compute and publish one shard here or in a worker, or find it published by an interrupted run ("Cached")."""
    use_credentials(run.config.storage.credentials_block)
    counted_here = run.stage.phase is Phase.TRAINING  # its steps; the shards of other stages are counted by the flow
    with progress_bar(run.stage.name, "step") if counted_here else nullcontext():
        entry, computed = workers.compute_shard(run, spec) if workers is not None else run.compute_shard(spec)
    return entry if computed else Completed(name="Cached", message=entry.file, data=entry)


def publish(run: StageRun, done: Sequence[ShardEntry]) -> Manifest:
    """Publish the stage's manifest in a task that materializes the results as Prefect assets with their sources."""
    publishing = materialize(
        *results_of(run, done),
        by=MADE_BY,
        asset_deps=[*sources_of(run)],
        name="publish",
        task_run_name="{run.stage.name}: publish",
        **UNCACHED,
        **RETRIED,
    )(_publish)
    return publishing(opaque(run), opaque(done))


def _publish(run: StageRun, done: Sequence[ShardEntry]) -> Manifest:
    """Publish the stage's manifest and show it in the UI."""
    only_named_sources()
    manifest = run.publish(done)
    describe_results(run, manifest)
    show_stage(run.storage, manifest, run.config.seed)
    return manifest
