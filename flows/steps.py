"""One stage, step by step: look up, waves of mapped shards, publish."""

from __future__ import annotations

from typing import cast

from prefect import unmapped

from ospo_core.artifacts.manifest import Manifest, ShardEntry
from ospo_core.stages.progress import Event, emit
from tasks.jobs import StageJob
from tasks.remote_training import train_elsewhere
from tasks.stage_tasks import compute_shard, look_up, plan_wave, publish


def run_stage(job: StageJob, refresh: bool = False) -> tuple[Manifest, bool]:
    """Return the stage's manifest, and whether it was computed now (and not found in the storage)."""
    found = cast("Manifest | None", look_up(job, refresh, return_state=True).result())
    if found is not None:
        emit(Event("cached", job.stage))
        return found, False
    if job.elsewhere is not None:
        return train_elsewhere(job, refresh), True
    done: list[ShardEntry] = []
    while specs := plan_wave(job, done):
        total = len(done) + len(specs)
        emit(Event("started", job.stage, done=len(done), total=total))
        for future in compute_shard.map(unmapped(job), specs):
            done.append(cast(ShardEntry, future.result()))
            emit(Event("advanced", job.stage, done=len(done), total=total))
    manifest = publish(job, done)
    emit(Event("finished", job.stage))
    return manifest, True
