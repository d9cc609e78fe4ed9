"""One stage, step by step: look up, waves of mapped shards, publish."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from prefect import unmapped

from flows.runners import shard_runner
from ospo_core.artifacts.manifest import Manifest, ShardEntry
from ospo_core.schema import StageName
from ospo_core.stages import ShardSpec
from ospo_core.stages.progress import Event, emit
from ospo_core.stages.redo import RedoRequest
from tasks.jobs import StageJob, untouched
from tasks.prefect_ui import told
from tasks.remote_training import train_elsewhere
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
    if job.elsewhere is not None:
        return train_elsewhere(job, request), True
    done: list[ShardEntry] = []
    while specs := plan_wave(untouched(job), untouched(done)):
        total = len(done) + len(specs)
        emit(Event("started", job.stage, done=len(done), total=total))
        for entry in _computed(job, specs):
            done.append(entry)
            emit(Event("advanced", job.stage, done=len(done), total=total))
    manifest = publish(job, done)
    emit(Event("finished", job.stage))
    return manifest, True


def _computed(job: StageJob, specs: Sequence[ShardSpec]) -> Iterator[ShardEntry]:
    """Compute a wave: mapped by the run's task runner, but training in the flow's own thread.

    Only that thread hears of a cancellation, and a training process must be told to write its checkpoint and end. It is
    one shard, and goes on from the checkpoints in the local scratch folder.
    """
    if job.stage is StageName.TRAINING:
        for spec in specs:
            yield cast(ShardEntry, compute_shard(untouched(job), spec, return_state=True).result())
        return
    with shard_runner(job) as (runner, shard_job):
        for future in runner.map(compute_shard, {"job": unmapped(shard_job), "spec": specs}):
            yield cast(ShardEntry, future.result())
