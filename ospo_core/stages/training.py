"""Stage `training`: an adapter, trained in a separate process, and the merged model (docs/method.md, section 4).

The table holds the training curves; the model itself lies in `models/<digest>` of the storage, whole and ready to be
loaded, and its digest is what later stages see of this one. The process keeps its checkpoints in the scratch folder
under the stage's fingerprint, so that a retry or a restarted round resumes from the last of them.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from ospo_core.artifacts.atomic_write import atomic_file
from ospo_core.artifacts.checksummed_json import damaged
from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.model_digest import model_digest
from ospo_core.artifacts.tables import read_entry, read_shard
from ospo_core.config import RoundConfig
from ospo_core.schema import TABLES, StageName, table_from_rows
from ospo_core.sharing.imported import ImportedPairs
from ospo_core.stages.base import Phase, ShardResult, ShardSpec, Stage, shard_name
from ospo_core.stages.imported_pairs import find_imported
from ospo_core.stages.model_ref import MERGED, MODEL_DIGEST, PARENT_SOURCE, trained
from ospo_core.stages.progress import Event, emit
from ospo_core.stages.run import StageRun


class TrainingStage(Stage):
    """Reads `pairs`, writes `metrics`, and puts the adapter and the merged model into the storage."""

    name: ClassVar[StageName] = StageName.TRAINING
    version: ClassVar[int] = 5
    table: ClassVar[str] = "metrics"
    reads: ClassVar[tuple[StageName, ...]] = (StageName.PAIRS,)
    phase: ClassVar[Phase] = Phase.TRAINING

    def fields(self, config: RoundConfig) -> dict[str, Any]:
        """Return the options that determine the outcome, and the seed."""
        from ospo_core.training.job import outcome_options

        return {"training": outcome_options(config.training), "seed": config.seed}

    def shards(self, run: StageRun) -> list[ShardSpec]:
        """Return the only shard: the whole training."""
        return [ShardSpec(name=shard_name(0), index=0)]

    def run_shard(self, run: StageRun, spec: ShardSpec) -> ShardResult:
        """Train, or resume from the last checkpoint; then store the models.

        Raises:
            TrainingError: the process failed or training collapsed.
        """
        from ospo_core.training.job import TrainingJob, read_metrics
        from ospo_core.training.process import run_training

        run.resources.release()
        imported = find_imported(run.config.training, run.storage, run.model.digest)
        out, steps = _out_dir(run), run.config.training.steps
        job = TrainingJob(
            model_folder=run.model_folder.absolute(),
            model_digest=run.model.digest,
            model=run.config.model,
            pairs_path=_local_pairs(run, out, imported),
            training=run.config.training,
            seed=run.config.seed,
            out_dir=out,
        )
        result = run_training(job, lambda row: _report(row, steps))
        digest = model_digest(result.merged)
        merged, adapter = f"models/{digest}", f"{run.prefix}/adapter"
        run.storage.put_folder(result.merged, merged)
        run.storage.put_folder(result.adapter, adapter)
        counts = {"pairs": result.pairs, "steps": result.steps}
        return ShardResult(
            table=table_from_rows("metrics", _long_form(read_metrics(out / "metrics.jsonl"))),
            items_in=result.pairs,
            counts=counts if imported is None else {**counts, "imported_pairs": imported.rows},
            extra={
                "digest": digest,
                MODEL_DIGEST: digest,
                "parent_digest": run.model.digest,
                PARENT_SOURCE: run.model.source,
                MERGED: merged,
                "adapter": adapter,
                "metrics": result.metrics,
            },
        )

    def finish(self, run: StageRun, manifest: Manifest) -> Manifest:
        """Delete the scratch folder, whose models are now in the storage.

        Raises:
            DamagedArtifactError: the merged model was deleted since.
        """
        merged = trained(manifest).merged
        if not run.storage.exists(f"{merged}/config.json"):  # the first file that is deleted
            raise damaged(run.storage.uri(merged), f"is missing, but {run.prefix} was trained to make it")
        with self.lock(run):
            shutil.rmtree(_out_dir(run), ignore_errors=True)
        return manifest

    def lock(self, run: StageRun) -> AbstractContextManager[None]:
        """Return the lock of the scratch folder: a second run of the same training waits for the first."""
        from ospo_core.training.lock import folder_lock

        return folder_lock(_out_dir(run))

    def gpus(self, run: StageRun) -> int:
        """Return the number of GPUs that share the forward passes of a step."""
        from ospo_core.training.process import training_processes

        return min(run.gpus_here(), training_processes(run.gpus_here(), run.config.training.accumulation))


class ImportedTrainingStage(TrainingStage):
    """The same with imported pairs alone, so that it needs no earlier stage."""

    reads: ClassVar[tuple[StageName, ...]] = ()


STAGE = TrainingStage()
IMPORTED_ONLY = ImportedTrainingStage()


def _out_dir(run: StageRun) -> Path:
    return run.scratch.absolute() / "training" / run.fingerprint


def _local_pairs(run: StageRun, out: Path, imported: ImportedPairs | None) -> Path:
    """Copy the pairs, without pictures, into one local file, shard by shard, imported ones last; return its path."""
    columns = [name for name in TABLES["pairs"].names if not name.endswith(("_image", "_answers"))]
    manifests = [run.upstream[name] for name in run.stage.reads]
    own = (read_shard(run.storage, one, index, columns) for one in manifests for index in range(len(one.shards)))
    entries = imported.shards if imported is not None else ()
    others = (read_entry(run.storage, imported.prefix, entry, columns) for entry in entries if imported is not None)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "pairs.parquet"
    schema = pa.schema([TABLES["pairs"].field(name) for name in columns])
    with atomic_file(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for table in chain(own, others):
            writer.write_table(table)
    return path


def _report(row: dict[str, float], steps: int) -> None:
    note = f"loss {row['loss']:.3f}" if "loss" in row else ""
    emit(Event("advanced", StageName.TRAINING, done=int(row["step"]), total=steps, note=note))


def _long_form(metrics: Sequence[dict[str, float]]) -> list[dict[str, Any]]:
    """Return one row per step and figure."""
    return [
        {"step": int(row["step"]), "name": name, "value": float(value)}
        for row in metrics
        for name, value in row.items()
        if name != "step"
    ]
