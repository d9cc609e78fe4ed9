"""One stage, step by step: look up, waves of mapped shards, publish."""

from __future__ import annotations

from typing import cast

from prefect import unmapped

from flows.runners import shard_runner
from ospo_core.artifacts.manifest import Manifest, ShardEntry
from ospo_core.stages.progress import Event, emit
from ospo_core.stages.redo import RedoRequest
from tasks.jobs import StageJob, untouched
from tasks.showing import told
from tasks.stage_tasks import LookedUp, compute_shard, look_up, plan_wave, publish


@told
def run_stage(job: StageJob, request: RedoRequest | None = None) -> tuple[Manifest, bool]:
    """Return the stage's manifest, and whether it was computed now (and not found in the storage).

    Args:
        job: the stage.
        request: do the stage, or some items of it, over although it is cached.
    """
    found = cast(LookedUp, look_up(untouched(job), request, return_state=True).result())
    job = found.job
    if found.manifest is not None:
        emit(Event("cached", job.stage))
        return found.manifest, False
    done: list[ShardEntry] = []
    while specs := plan_wave(untouched(job), untouched(done)):
        total = len(done) + len(specs)
        emit(Event("started", job.stage, done=len(done), total=total))
        with shard_runner(job) as (runner, shard_job):
            for future in runner.map(compute_shard, {"job": unmapped(untouched(shard_job)), "spec": specs}):
                done.append(cast(ShardEntry, future.result()))
                emit(Event("advanced", job.stage, done=len(done), total=total))
    manifest = publish(job, done)
    emit(Event("finished", job.stage))
    return manifest, True
