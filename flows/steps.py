"""One stage, step by step: look up, waves of mapped shards, publish."""

from __future__ import annotations

from typing import TypeVar, cast

from prefect import unmapped
from prefect.utilities.annotations import quote

from ospo_core.artifacts.manifest import Manifest, ShardEntry
from ospo_core.stages.progress import Event, emit
from ospo_core.stages.redo import RedoRequest
from tasks.jobs import StageJob
from tasks.stage_tasks import LookedUp, compute_shard, look_up, plan_wave, publish

_Argument = TypeVar("_Argument")


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
        for future in compute_shard.map(unmapped(untouched(job)), specs):
            done.append(cast(ShardEntry, future.result()))
            emit(Event("advanced", job.stage, done=len(done), total=total))
    manifest = publish(untouched(job), untouched(done))
    emit(Event("finished", job.stage))
    return manifest, True


def untouched(argument: _Argument) -> _Argument:
    """Hand an argument to a task as it is.

    Prefect would look through it for states and futures; with a manifest of thousands of shards that takes a second a
    task run.
    """
    return cast(_Argument, quote(argument))
