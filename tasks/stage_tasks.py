"""The four tasks that every stage is made of: look up, plan a wave, compute a shard, publish."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from prefect import task
from prefect.assets import materialize
from prefect.client.schemas.objects import State
from prefect.states import Completed

from ospo_core.artifacts.manifest import Manifest, ShardEntry
from ospo_core.config.sections import Section
from ospo_core.rounds.attempts import next_redo, record_result, recorded_redo
from ospo_core.schema import StageName
from ospo_core.stages import ShardSpec
from ospo_core.stages.redo import RedoRequest
from ospo_core.stages.runner import find_shard, next_shards, publish_stage, run_one_shard, stage_manifest
from tasks.assets import MADE_BY, describe_results, only_named_sources, refer_to, results_of, sources_of
from tasks.jobs import StageJob, untouched
from tasks.prefect_ui import artifact_key, show_cached, show_stage
from tasks.progress import steps_counted
from tasks.retries import RETRIED, UNCACHED


class LookedUp(Section):
    """What is known of a stage before anything is computed: which attempt it is, and its manifest if it is done."""

    job: StageJob
    manifest: Manifest | None = None


@task(task_run_name="{job.stage}: look up", **UNCACHED, **RETRIED)
def look_up(job: StageJob, request: RedoRequest | None = None) -> LookedUp | State[Any]:
    """Return the attempt that counts in the round, in a state named "Cached" if it is done.

    Args:
        job: the stage.
        request: begin a new attempt, so that the stage, or some items of it, are computed anew.

    Raises:
        DamagedArtifactError: the stage was published and is damaged; a new attempt mends that.
        ConfigError, StageError: the request does not fit the stage.
    """
    ctx, stage = job.ordinary_context(), job.implementation()
    redo = recorded_redo(ctx, stage, job.round)
    if request is not None:
        return LookedUp(job=job.model_copy(update={"redo": next_redo(ctx, stage, redo, request)}))
    job = job.model_copy(update={"redo": redo})
    manifest = stage_manifest(job.context(), stage)
    if manifest is None:
        return LookedUp(job=job)
    record_result(ctx, stage, job.round, redo)
    show_cached(manifest)
    refer_to(job, manifest)
    return Completed(name="Cached", message=manifest.prefix, data=LookedUp(job=job, manifest=manifest))


@task(task_run_name="{job.stage}: plan", **UNCACHED, **RETRIED)
def plan_wave(job: StageJob, done: list[ShardEntry]) -> list[ShardSpec]:
    """Return the next units of the stage; none when it is complete."""
    return next_shards(job.context(), job.implementation(), done)


@task(task_run_name="{job.stage}: {spec.name}", **UNCACHED, **RETRIED)
def compute_shard(job: StageJob, spec: ShardSpec) -> ShardEntry | State[Any]:
    """Compute and publish one unit, or find it published by a run that was interrupted ("Cached")."""
    ctx, stage = job.context(), job.implementation()
    found = find_shard(ctx, stage, spec)
    if found is not None:
        return Completed(name="Cached", message=found.file, data=found)
    with _progress(job.stage):
        return run_one_shard(ctx, stage, spec)


def publish(job: StageJob, done: list[ShardEntry]) -> Manifest:
    """Publish the stage's manifest in a task that materialises its results as assets of what they were made from."""
    publishing = materialize(
        *results_of(job, done),
        by=MADE_BY,
        asset_deps=[*sources_of(job)],
        name="publish",
        task_run_name="{job.stage}: publish",
        **UNCACHED,
        **RETRIED,
    )(_publish)
    return publishing(untouched(job), untouched(done))


def _publish(job: StageJob, done: list[ShardEntry]) -> Manifest:
    """Publish the stage's manifest, note it in the round's record, and show it in the UI."""
    only_named_sources()
    ctx = job.context()
    manifest = publish_stage(ctx, job.implementation(), done)
    record_result(job.ordinary_context(), job.implementation(), job.round, job.redo)
    describe_results(job, manifest)
    show_stage(ctx.storage, manifest, job.config.seed)
    return manifest


def _progress(stage: StageName) -> AbstractContextManager[object]:
    """Return the progress bar of a long unit; the others are short, and are counted by the flow."""
    if stage is not StageName.TRAINING:
        return nullcontext()
    return steps_counted(stage, f"{artifact_key(stage)}-progress")
