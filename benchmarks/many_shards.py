"""A stage that does almost nothing over many shards, to measure the cost of the shards themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from benchmarks.measuring import Clock
from ospo_core.artifacts.manifest import Manifest, ShardEntry
from ospo_core.artifacts.storage import Storage
from ospo_core.config import RoundConfig
from ospo_core.rounds.lineage import all_manifests
from ospo_core.schema import StageName, table_from_rows
from ospo_core.stages.base import Phase, ShardResult, ShardSpec, Stage
from ospo_core.stages.model_ref import ModelRef
from ospo_core.stages.run import StageRun, run_stage

_QUESTIONS = {"of": "base", "prompt": "a red circle", "questions": ["is there a red circle ?"]}


class ManyShards(Stage):
    """One row per shard of `perturbations`."""

    name: ClassVar[StageName] = StageName.QUESTIONS
    table: ClassVar[str] = "questions"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[StageName, ...]] = (StageName.PERTURBATIONS,)
    phase: ClassVar[Phase] = Phase.TEXT
    follows: ClassVar[StageName | None] = StageName.PERTURBATIONS
    uses_model: ClassVar[bool] = False

    def fields(self, config: RoundConfig) -> dict[str, Any]:
        """Return nothing: no option changes the outcome."""
        return {}

    def run_shard(self, run: StageRun, spec: ShardSpec) -> ShardResult:
        """Return one row."""
        return ShardResult(table_from_rows("questions", [{"item_id": f"{spec.index:016x}", **_QUESTIONS}]), items_in=1)


def many_shards(folder: Path, shards: int, clock: Clock) -> int:
    """Run the stage, look it up as a cached run does, and list all results; return the number of shards."""
    config = RoundConfig.model_validate({"name": "many", "model": {"device": "cpu"}, "storage": {"root": str(folder)}})
    above = Manifest(
        stage=StageName.PERTURBATIONS,
        fingerprint="0" * 64,
        version=1,
        shards=tuple(_entry(number) for number in range(shards)),
        rows=shards,
        items_in=shards,
    )
    storage, model = Storage(str(folder)), ModelRef(digest="0" * 64, source="")
    with clock.running():
        run = StageRun.bind(ManyShards(), config, storage, model, {StageName.PERTURBATIONS: above})
        made, _ = run_stage(run)
        found = run.find()
        listed = all_manifests(storage)
    if found != made or listed != [made]:
        raise SystemExit("what was published is not what was found")
    return len(made.shards)


def _entry(number: int) -> ShardEntry:
    """Return a shard of an earlier stage; its file is never read."""
    name = f"part-{number:05d}"
    return ShardEntry(
        name=name, file=f"{name}.parquet", table="perturbations", rows=1, sha256=f"{number:064x}", bytes=1
    )
