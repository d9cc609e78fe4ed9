"""Replay of a finished round: stages that publish the shards of a finished round again, without computing them.

This measures what surrounds the work of the stages (the loop, the storage, the flow) on real tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ospo_core.artifacts.manifest import Manifest, ShardEntry
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.tables import read_shard, read_shard_entry
from ospo_core.config import RoundConfig
from ospo_core.rounds.plan import plan_round
from ospo_core.rounds.round import Round
from ospo_core.schema import StageName
from ospo_core.stages import STAGES
from ospo_core.stages.base import ShardResult, ShardSpec, Stage
from ospo_core.stages.model_ref import ModelRef
from ospo_core.stages.run import ITEMS_IN, StageRun


def finished_round(config: RoundConfig, storage: Storage, model: ModelRef) -> dict[StageName, Manifest]:
    """Return the manifests of the round that `config` describes.

    Raises:
        SystemExit: the round is not finished in this storage.
    """
    _, manifests = plan_round(Round(config, storage, model))
    if list(manifests) != list(STAGES):
        raise SystemExit(f"no finished round of this configuration in {storage.uri()}: run `ospo round` first")
    return manifests


def replayed(storage: Storage, manifests: Mapping[StageName, Manifest]) -> dict[StageName, Stage]:
    """Return stages that publish the results that `manifests` name."""
    stages: dict[StageName, Stage] = {}
    for name, manifest in manifests.items():
        units = units_of(storage, manifest)
        made = manifest.model_copy(update={"shards": tuple(entry for wave in units for entry in wave)})
        attributes = {
            **{key: getattr(STAGES[name], key) for key in ("name", "version", "table", "reads", "phase", "uses_model")},
            "__doc__": f"Stage {name} of a finished round.",
        }
        stages[name] = type("Replayed", (Replay,), attributes)(storage, made, manifest, units)
    return stages


def units_of(storage: Storage, manifest: Manifest) -> list[list[ShardEntry]]:
    """Return the shards that a stage published, wave by wave."""
    names = [key.removeprefix(f"{manifest.prefix}/") for key in storage.list(manifest.prefix)]
    names = [name for name in names if name.endswith(".json") and "/" not in name and name != "manifest.json"]
    entries = [read_shard_entry(storage, manifest.prefix, name.removesuffix(".json")) for name in names]
    waves: dict[int, list[ShardEntry]] = {}
    for entry in entries:
        waves.setdefault(int(entry.extra.get("wave", 0)), []).append(entry)
    return [waves[wave] for wave in sorted(waves)]


class Replay(Stage):
    """Publishes the shards of a finished stage again.

    Args:
        source: storage of the finished stage.
        units: its manifest, with the shards it published while it ran instead of the final ones.
        manifest: its manifest.
        waves: entries of the shards it published, wave by wave.
    """

    name: ClassVar[StageName]
    table: ClassVar[str]

    def __init__(
        self, source: Storage, units: Manifest, manifest: Manifest, waves: Sequence[Sequence[ShardEntry]]
    ) -> None:
        self.source, self.units, self.manifest, self.waves = source, units, manifest, waves

    def fields(self, config: RoundConfig) -> dict[str, Any]:
        """Return the fields of the stage itself."""
        return dict(self.manifest.ingredients["fields"])

    def shards(self, run: StageRun) -> list[ShardSpec]:
        """Return the shards of the first wave."""
        return self.more_shards(run, [])

    def more_shards(self, run: StageRun, done: Sequence[ShardEntry]) -> list[ShardSpec]:
        """Return the shards of the next wave."""
        begun = 0
        for wave in self.waves:
            if begun == len(done):
                return [ShardSpec(name=entry.name, index=begun + at) for at, entry in enumerate(wave)]
            begun += len(wave)
        return []

    def run_shard(self, run: StageRun, spec: ShardSpec) -> ShardResult:
        """Return the shard as it was published."""
        entry = self.units.shards[spec.index]
        counts = {name: count for name, count in entry.counts.items() if name != ITEMS_IN}
        table = read_shard(self.source, self.units, spec.index)
        items_in = int(entry.counts.get(ITEMS_IN, entry.rows))
        return ShardResult(table, items_in, drops=entry.drops, counts=counts, extra=entry.extra)

    def finish(self, run: StageRun, manifest: Manifest) -> Manifest:
        """Return the manifest with the figures of the finished stage."""
        figures = ("items_in", "drops", "counts", "extra")
        return manifest.model_copy(update={name: getattr(self.manifest, name) for name in figures})
