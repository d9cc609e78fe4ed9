"""The four tasks that every stage is made of: look up, plan a wave, compute a shard, publish."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from prefect import task
from prefect.client.schemas.objects import State
from prefect.states import Completed

from ospo_core.artifacts.manifest import Manifest, ShardEntry
from ospo_core.schema import StageName
from ospo_core.stages import ShardSpec
from ospo_core.stages.runner import discard, find_shard, next_shards, publish_stage, run_one_shard, stage_manifest
from tasks.jobs import StageJob
from tasks.retries import RETRIED, UNCACHED
from tasks.showing import progress_shown, show_stage


@task(task_run_name="{job.stage}: look up", **UNCACHED, **RETRIED)
def look_up(job: StageJob, refresh: bool = False) -> Manifest | State[Any] | None:
    """Return the stage's manifest, in a state named "Cached", or None if it is to be computed.

    Args:
        job: the stage.
        refresh: delete what was published, so that it is computed anew.

    Raises:
        DamagedArtifactError: the stage was published and is damaged; `refresh` mends that.
    """
    ctx, stage = job.context(), job.implementation()
    if refresh:
        discard(ctx, stage)
        return None
    manifest = stage_manifest(ctx, stage)
    return None if manifest is None else Completed(name="Cached", message=manifest.prefix, data=manifest)


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
    """Publish the stage's manifest and show it in the UI."""
    ctx = job.context()
    manifest = publish_stage(ctx, job.implementation(), done)
    show_stage(ctx.storage, manifest)
    return manifest


def _progress(stage: StageName) -> AbstractContextManager[None]:
    """Return the progress bar of a long unit; the others are short, and are counted by the flow."""
    return progress_shown(stage) if stage is StageName.TRAINING else nullcontext()
