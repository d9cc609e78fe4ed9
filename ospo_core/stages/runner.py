"""Run a stage: look for its manifest, compute the shards that are missing, publish. Nothing here knows Prefect."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from ospo_core.artifacts.manifest import Manifest, ShardEntry, load_manifest, publish_manifest
from ospo_core.artifacts.shards import load_shard_entry, publish_shard
from ospo_core.artifacts.storage_errors import disk_problem
from ospo_core.errors import StorageError
from ospo_core.schema import SCHEMA_VERSION
from ospo_core.stages.base import ITEMS_IN, ShardSpec, Stage, StageContext
from ospo_core.stages.fingerprint import identify
from ospo_core.stages.partial import run_part


def stage_manifest(ctx: StageContext, stage: Stage, verify: bool = True) -> Manifest | None:
    """Return the manifest of the stage if it is done, else None.

    Raises:
        DamagedArtifactError: it is there, but its bytes or those of a shard are not what was published.
    """
    return load_manifest(ctx.storage, stage.name, identify(ctx, stage).fingerprint, verify=verify)


def next_shards(ctx: StageContext, stage: Stage, done: Sequence[ShardEntry]) -> list[ShardSpec]:
    """Return the next wave of the stage's units, given the entries of all earlier waves."""
    return stage.shards(ctx, done)


def find_shard(ctx: StageContext, stage: Stage, spec: ShardSpec) -> ShardEntry | None:
    """Return the entry of a unit that was published before, by this or by a killed run.

    Raises:
        DamagedArtifactError: its bytes are not what was published.
    """
    return load_shard_entry(ctx.storage, identify(ctx, stage).prefix, spec.name)


def run_one_shard(ctx: StageContext, stage: Stage, spec: ShardSpec) -> ShardEntry:
    """Compute and publish one unit, or return its entry if it was published before, or while this run waited."""
    with _disk_faults(ctx), stage.alone(ctx):
        return find_shard(ctx, stage, spec) or _computed(ctx, stage, spec)


def _computed(ctx: StageContext, stage: Stage, spec: ShardSpec) -> ShardEntry:
    """Compute and publish one unit."""
    started, worked = time.monotonic(), _cpu_seconds()
    result = run_part(ctx, stage, spec) if ctx.is_partial else stage.run_shard(ctx, spec)
    seconds = time.monotonic() - started
    return publish_shard(
        ctx.storage,
        identify(ctx, stage).prefix,
        spec.name,
        result.table,
        drops=dict(result.drops),
        counts={**result.counts, ITEMS_IN: result.items_in},
        seconds=seconds,
        extra=dict(result.extra),
        cpu_seconds=max(0.0, _cpu_seconds() - worked),
        gpu_seconds=seconds * stage.gpus(ctx),
    )


def _cpu_seconds() -> float:
    """Return the processor time of this process and of its children that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


@contextmanager
def _disk_faults(ctx: StageContext) -> Iterator[None]:
    """Turn a full or read-only disk under the scratch folder into an error that says so."""
    try:
        yield
    except OSError as error:
        problem = disk_problem(error)
        if not problem:
            raise
        raise StorageError(
            problem,
            field=str(error.filename or ctx.scratch),
            remedy="Free space there, or choose another storage.scratch, and run again",
        ) from error


def publish_stage(ctx: StageContext, stage: Stage, done: Sequence[ShardEntry]) -> Manifest:
    """Finalise the stage and publish its manifest; where another run was first, return that one's.

    Raises:
        StageError: the stage's outcome cannot be used, e.g. no prompts or no pairs.
    """
    started = time.monotonic()
    identity = identify(ctx, stage)
    outcome = stage.finalise(ctx, done)
    manifest = Manifest(
        stage=stage.name,
        fingerprint=identity.fingerprint,
        version=stage.version,
        schema_version=SCHEMA_VERSION,
        ingredients=identity.ingredients,
        shards=outcome.shards,
        rows=sum(entry.rows for entry in outcome.shards),
        items_in=outcome.items_in,
        drops=dict(outcome.drops),
        counts=dict(outcome.counts),
        extra=dict(outcome.extra),
        seconds=sum(entry.seconds for entry in done) + time.monotonic() - started,
        cpu_seconds=sum(entry.cpu_seconds for entry in done),
        gpu_seconds=sum(entry.gpu_seconds for entry in done),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return publish_manifest(ctx.storage, manifest)


def run_stage(ctx: StageContext, stage: Stage) -> Manifest:
    """Run a stage from start to end in this process, one unit after the other."""
    manifest = stage_manifest(ctx, stage)
    if manifest is not None:
        return manifest
    done: list[ShardEntry] = []
    while wave := next_shards(ctx, stage, done):
        done += [run_one_shard(ctx, stage, spec) for spec in wave]
    return publish_stage(ctx, stage, done)
