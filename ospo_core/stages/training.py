"""Stage `training`: one adapter, trained in a process of its own, and the merged model for the next round (method, 4).

The table holds the training curves; the model itself lies in `models/<digest>` of the storage, whole and ready to be
loaded, and its digest is what later stages see of this one. The process keeps its checkpoints in the scratch folder
under the stage's fingerprint, so that a retry or a restarted round resumes from the last of them.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from ospo_core.artifacts.manifest import Manifest, ShardEntry
from ospo_core.artifacts.model_digest import model_digest
from ospo_core.artifacts.tables import read_shard
from ospo_core.config import RoundConfig
from ospo_core.schema import TABLES, StageName, table_from_rows
from ospo_core.stages.base import Outcome, ShardResult, ShardSpec, Stage, StageContext, shard_name
from ospo_core.stages.fingerprint import identify
from ospo_core.stages.model_ref import ModelRef, stored_ref
from ospo_core.stages.progress import Event, emit

MODEL_DIGEST = "model_digest"
MERGED = "merged"
ADAPTER = "adapter"


class TrainingStage(Stage):
    """Reads `pairs`, writes `metrics`, and puts the adapter and the merged model into the storage."""

    name: ClassVar[StageName] = StageName.TRAINING
    version: ClassVar[int] = 2
    table: ClassVar[str] = "metrics"
    upstream: ClassVar[tuple[StageName, ...]] = (StageName.PAIRS,)

    def fields(self, config: RoundConfig) -> dict[str, Any]:
        """Return the section, without how often checkpoints are written, and the seed."""
        return {"training": config.training.model_dump(mode="json", exclude={"checkpoint_every"}), "seed": config.seed}

    def shards(self, ctx: StageContext, done: Sequence[ShardEntry]) -> list[ShardSpec]:
        """Return the one unit."""
        return [] if done else [ShardSpec(name=shard_name(0), index=0)]

    def run_shard(self, ctx: StageContext, spec: ShardSpec) -> ShardResult:
        """Train, or go on from the last checkpoint; then store the models.

        Raises:
            TrainingError: the process failed or training collapsed.
        """
        from ospo_core.training.job import TrainingJob
        from ospo_core.training.metrics import read_metrics
        from ospo_core.training.process import run_training

        ctx.resources.give_back()
        identity, steps = identify(ctx, self), ctx.config.training.steps
        out = self._out_dir(ctx)
        job = TrainingJob(
            model_folder=ctx.model_folder.absolute(),
            model=ctx.config.model,
            pairs_path=_local_pairs(ctx, out),
            training=ctx.config.training,
            seed=ctx.config.seed,
            out_dir=out,
        )
        result = run_training(job, lambda row: _report(row, steps))
        digest = model_digest(result.merged)
        merged, adapter = f"models/{digest}", f"{identity.prefix}/{ADAPTER}"
        ctx.storage.put_folder(result.merged, merged)
        ctx.storage.put_folder(result.adapter, adapter)
        return ShardResult(
            table=table_from_rows("metrics", _long_form(read_metrics(out / "metrics.jsonl"))),
            items_in=result.pairs,
            counts={"pairs": result.pairs, "steps": result.steps},
            extra={
                "digest": digest,
                MODEL_DIGEST: digest,
                "parent_digest": ctx.model_digest,
                MERGED: merged,
                ADAPTER: adapter,
                "metrics": result.metrics,
            },
        )

    def finalise(self, ctx: StageContext, done: Sequence[ShardEntry]) -> Outcome:
        """Return the outcome; with the models stored, the scratch folder's copies have served."""
        outcome = super().finalise(ctx, done)
        with self.alone(ctx):
            shutil.rmtree(self._out_dir(ctx), ignore_errors=True)
        return outcome

    def alone(self, ctx: StageContext) -> AbstractContextManager[None]:
        """Return the lock of the scratch folder: of two runs of this training the second waits for the first's."""
        from ospo_core.training.lock import alone

        return alone(self._out_dir(ctx))

    def gpus(self, ctx: StageContext) -> int:
        """Return how many GPUs share the forward passes of a step."""
        from ospo_core.training.process import training_processes

        return min(ctx.gpus_here(), training_processes(ctx.gpus_here(), ctx.config.training.accumulation))

    def _out_dir(self, ctx: StageContext) -> Path:
        return ctx.scratch.absolute() / "training" / identify(ctx, self).fingerprint


def trained_model(manifest: Manifest) -> ModelRef:
    """Return the model that a finished training made."""
    return stored_ref(str(manifest.extra[MODEL_DIGEST]), str(manifest.extra[MERGED]))


def _local_pairs(ctx: StageContext, out: Path) -> Path:
    """Copy the pairs into one local file, without the pictures, a shard in memory at a time; return its path."""
    manifest = ctx.upstream[StageName.PAIRS]
    out.mkdir(parents=True, exist_ok=True)
    path, draft = out / "pairs.parquet", out / "pairs.parquet.tmp"
    columns = [name for name in TABLES["pairs"].names if not name.endswith(("_image", "_answers"))]
    writer: pq.ParquetWriter | None = None
    for index in range(len(manifest.shards)):
        table: pa.Table = read_shard(ctx.storage, manifest, index, columns)
        writer = writer or pq.ParquetWriter(draft, table.schema, compression="zstd")
        writer.write_table(table)
    if writer is not None:
        writer.close()
        draft.replace(path)
    return path


def _report(row: dict[str, float], steps: int) -> None:
    """Tell who listens of one training step."""
    note = f"loss {row['loss']:.3f}" if "loss" in row else ""
    emit(Event("advanced", StageName.TRAINING, done=int(row["step"]), total=steps, note=note))


def _long_form(metrics: Sequence[dict[str, float]]) -> list[dict[str, Any]]:
    """Return one row for each step and figure."""
    return [
        {"step": int(row["step"]), "name": name, "value": float(value)}
        for row in metrics
        for name, value in row.items()
        if name != "step"
    ]
