"""The four tasks that every stage is made of: look up, plan a wave, compute a shard, publish."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from prefect import task
from prefect.client.schemas.objects import State
from prefect.states import Completed

from ospo_core.artifacts.manifest import Manifest, ShardEntry
from ospo_core.config.sections import Section
from ospo_core.schema import StageName
from ospo_core.stages import ShardSpec
from ospo_core.stages.attempts import next_redo, record_result, recorded_redo
from ospo_core.stages.redo import RedoRequest
from ospo_core.stages.runner import find_shard, next_shards, publish_stage, run_one_shard, stage_manifest
from tasks.jobs import StageJob
from tasks.retries import RETRIED, UNCACHED
from tasks.showing import progress_shown, show_stage


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


@task(task_run_name="{job.stage}: publish", **UNCACHED, **RETRIED)
def publish(job: StageJob, done: list[ShardEntry]) -> Manifest:
    """Publish the stage's manifest, note it in the round's record, and show it in the UI."""
    ctx = job.context()
    manifest = publish_stage(ctx, job.implementation(), done)
    record_result(job.ordinary_context(), job.implementation(), job.round, job.redo)
    show_stage(ctx.storage, manifest)
    return manifest


def _progress(stage: StageName) -> AbstractContextManager[None]:
    """Return the progress bar of a long unit; the others are short, and are counted by the flow."""
    return progress_shown(stage) if stage is StageName.TRAINING else nullcontext()
