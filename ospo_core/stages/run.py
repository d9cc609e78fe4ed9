"""A stage bound to a round, and the one loop that runs it. Nothing here knows Prefect."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from ospo_core.artifacts.ids import digest_of
from ospo_core.artifacts.manifest import Manifest, ShardEntry, load_manifest, prefix_of, publish_manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.storage_errors import disk_problem
from ospo_core.artifacts.tables import load_shard_entry, publish_shard, read_shard
from ospo_core.config import RoundConfig
from ospo_core.engines import TextEngine
from ospo_core.errors import StorageError
from ospo_core.schema import SCHEMA_VERSION, StageName
from ospo_core.stages.attempts import Attempt, StageRecord, now, record_stage
from ospo_core.stages.base import Phase, ShardSpec, Stage
from ospo_core.stages.model_ref import ModelRef, model_folder, role_model
from ospo_core.stages.partial import chosen_items, run_chosen_items
from ospo_core.stages.progress import Event, emit
from ospo_core.stages.resources import Resources, shared_resources

if TYPE_CHECKING:
    from ospo_core.models.base import UnifiedModel
    from ospo_core.stages.judge import Judge

ITEMS_IN = "items_in"
"""Name among a shard's counts of the number of items offered to it."""


@dataclass(frozen=True)
class StageRun:
    """A stage bound to a round, with the identity of its result; it can be sent to another process.

    Args:
        stage: the stage.
        config: the round's configuration, with the overrides of the attempt.
        storage: where artifacts are kept.
        model: the model that the round starts from; in text stages the writer, if the configuration names one.
        upstream: manifests of earlier stages, at least of those that this one reads.
        ingredients: everything that determines the result (docs/architecture.md, decision 3).
        fingerprint: sha256 of the ingredients.
        resources: owner of the text engine and the loaded model.
        attempt: which attempt this is; None for the ordinary result.
        base: fingerprint of the ordinary result.
        round_id: the round in whose record the result is noted; empty for none.
        judge: who judges held-out pictures, or in `scores` the round's own; None for stages that judge none, and where
            the starting model judges its own.
        measured: scores of parent and child on the benchmark that is the gate of the round; None where none is.
    """

    stage: Stage
    config: RoundConfig
    storage: Storage
    model: ModelRef
    upstream: Mapping[StageName, Manifest]
    ingredients: Mapping[str, Any]
    fingerprint: str
    resources: Resources = field(default_factory=shared_resources)
    attempt: Attempt | None = None
    base: str = ""
    round_id: str = ""
    judge: Judge | None = None
    measured: tuple[Manifest, Manifest] | None = None

    @classmethod
    def bind(
        cls,
        stage: Stage,
        config: RoundConfig,
        storage: Storage,
        model: ModelRef,
        upstream: Mapping[StageName, Manifest],
        **others: Any,
    ) -> Self:
        """Return the stage bound to these, its identity computed; `others` are further attributes.

        Earlier stages count by the content of their tables, so that recomputing one with the same result changes
        nothing downstream.
        """
        ingredients: dict[str, Any] = {
            "stage": stage.name.value,
            "version": stage.version,
            "schema_version": SCHEMA_VERSION,
            "fields": stage.fields(config),
            "upstream": {name.value: content_of(upstream[name]) for name in stage.reads},
        }
        model = (role_model(config, storage, model, "writer") if stage.phase is Phase.TEXT else None) or model
        if stage.uses_model:
            ingredients["model"] = {"digest": model.digest, "family": config.model.family}
            ingredients["dtype"] = config.model.dtype
        judge = stage.judge(config, storage, model)
        if judge is not None:
            ingredients["judge"] = judge.identity()
        measured: tuple[Manifest, Manifest] | None = others.get("measured")
        if measured is not None:
            ingredients["benchmark"] = [content_of(one) for one in measured]
        attempt: Attempt | None = others.get("attempt")
        if attempt is not None:
            ingredients["redo"] = attempt.ingredients()
        fingerprint = digest_of(ingredients)
        return cls(stage, config, storage, model, dict(upstream), ingredients, fingerprint, judge=judge, **others)

    @property
    def prefix(self) -> str:
        """Folder of the result below the storage root."""
        return prefix_of(self.stage.name, self.fingerprint)

    @property
    def claim(self) -> str:
        """Key of an empty object, written whenever a shard is found, so that garbage collection spares its folder."""
        return f"{self.prefix}/in-use"

    @property
    def is_partial(self) -> bool:
        """Whether only chosen items are recomputed, and the rows of the others are kept."""
        return self.attempt is not None and bool(self.attempt.where)

    @property
    def scratch(self) -> Path:
        """Local folder for models, exports and training checkpoints."""
        return Path(self.config.storage.scratch).expanduser()

    @cached_property
    def model_folder(self) -> Path:
        """Local folder of the starting model, fetched on first use."""
        return model_folder(self.model, self.storage, self.scratch)

    def text_engine(self, ref: ModelRef | None = None) -> TextEngine:
        """Return the text engine of the starting model, or of the one that `ref` names."""
        folder = model_folder(ref, self.storage, self.scratch) if ref else self.model_folder
        return self.resources.text_engine(self.config.engine, folder, (ref or self.model).digest, self.scratch)

    def image_model(self, ref: ModelRef | None = None) -> UnifiedModel:
        """Return the loaded starting model, or the one that `ref` names."""
        folder = model_folder(ref, self.storage, self.scratch) if ref else self.model_folder
        return self.resources.image_model(self.config.model, folder, (ref or self.model).digest)

    def gpus_here(self) -> int:
        """Return the number of GPUs of this machine that the round may use."""
        if self.config.model.device == "cpu":
            return 0
        import torch

        return torch.cuda.device_count()

    def table(self, stage: StageName, index: int) -> pa.Table:
        """Return one shard of an earlier stage; in a partial attempt only the rows of the chosen items."""
        table = read_shard(self.storage, self.upstream[stage], index)
        if not self.is_partial:
            return table
        return table.filter(pc.is_in(table["item_id"], pa.array(sorted(self.chosen(index)), pa.string())))

    def rows(self, stage: StageName, index: int) -> list[dict[str, Any]]:
        """Return the rows of `table`."""
        rows: list[dict[str, Any]] = self.table(stage, index).to_pylist()
        return rows

    def chosen(self, index: int) -> frozenset[str]:
        """Return the items of shard `index` that a partial attempt recomputes.

        Raises:
            ConfigError: the condition cannot be used.
        """
        where = self.attempt.where if self.attempt is not None else ""
        return chosen_items(read_shard(self.storage, self.upstream[StageName.PROMPTS], index), where)

    def find(self, verify: bool = True) -> Manifest | None:
        """Return the manifest if the stage is done, else None.

        Raises:
            DamagedArtifactError: its bytes, or with `verify` those of a shard, are not what was published.
        """
        return load_manifest(self.storage, self.stage.name, self.fingerprint, verify=verify)

    def find_shard(self, spec: ShardSpec) -> ShardEntry | None:
        """Return the entry of a shard that this or an interrupted run has published, else None.

        Raises:
            DamagedArtifactError: its bytes are not what was published.
        """
        return load_shard_entry(self.storage, self.prefix, spec.name)

    def compute_shard(self, spec: ShardSpec) -> tuple[ShardEntry, bool]:
        """Compute and publish a shard unless it is published already; return its entry, and whether it was computed."""
        with _disk_faults(self.scratch), self.stage.lock(self):
            found = self.find_shard(spec)
            if found is not None:
                self.storage.write(self.claim, b"")
                return found, False
            started, cpu_started = time.monotonic(), _cpu_seconds()
            result = run_chosen_items(self, spec) if self.is_partial else self.stage.run_shard(self, spec)
            seconds = time.monotonic() - started
            batch_counts, batch_facts = self.resources.batch_figures()
            entry = publish_shard(
                self.storage,
                self.prefix,
                spec.name,
                result.table,
                drops=dict(result.drops),
                counts={**result.counts, **batch_counts, ITEMS_IN: result.items_in},
                seconds=seconds,
                extra={**result.extra, **batch_facts},
                cpu_seconds=max(0.0, _cpu_seconds() - cpu_started),
                gpu_seconds=seconds * self.stage.gpus(self),
            )
            return entry, True

    def manifest_of(self, done: Sequence[ShardEntry]) -> Manifest:
        """Return the unpublished manifest of these shards, through which their tables can be read."""
        counts = _sums(entry.counts for entry in done)
        return Manifest(
            stage=self.stage.name,
            fingerprint=self.fingerprint,
            version=self.stage.version,
            schema_version=SCHEMA_VERSION,
            ingredients=dict(self.ingredients),
            shards=tuple(done),
            rows=sum(entry.rows for entry in done),
            items_in=int(counts.pop(ITEMS_IN, 0)),
            drops=_sums(entry.drops for entry in done),
            counts=counts,
            extra={name: fact for entry in done for name, fact in entry.extra.items()},
            seconds=sum(entry.seconds for entry in done),
            cpu_seconds=sum(entry.cpu_seconds for entry in done),
            gpu_seconds=sum(entry.gpu_seconds for entry in done),
            created_at=now(),
        )

    def publish(self, done: Sequence[ShardEntry]) -> Manifest:
        """Finish the stage, publish its manifest, and note it in the round; of two runs the first one's counts.

        Raises:
            StageError: the result cannot be used, e.g. no prompts or no pairs.
            DamagedArtifactError: a shard was deleted while others were computed.
        """
        started = time.monotonic()
        finished = self.stage.finish(self, self.manifest_of(done))
        manifest = finished.model_copy(
            update={
                "rows": sum(entry.rows for entry in finished.shards),
                "seconds": finished.seconds + time.monotonic() - started,
            }
        )
        published = publish_manifest(self.storage, manifest)
        self.note()
        self.storage.delete(self.claim)
        return published

    def note(self) -> None:
        """Note in the round's record that this result counts; without a round nothing is written."""
        if self.round_id:
            record = StageRecord(
                stage=self.stage.name,
                fingerprint=self.fingerprint,
                base=self.base or self.fingerprint,
                attempt=self.attempt,
            )
            record_stage(self.storage, self.round_id, record)


def find(run: StageRun) -> Manifest | None:
    """Return the manifest of a stage that is done, having noted it in the round; None if it is not done."""
    manifest = run.find()
    if manifest is not None:
        run.note()
    return manifest


def in_turn(run: StageRun, specs: Sequence[ShardSpec]) -> Iterator[ShardEntry]:
    """Compute shards in this process, one after the other."""
    for spec in specs:
        yield run.compute_shard(spec)[0]


def run_stage(
    run: StageRun,
    find: Callable[[StageRun], Manifest | None] = find,
    map_shards: Callable[[StageRun, Sequence[ShardSpec]], Iterable[ShardEntry]] = in_turn,
    publish: Callable[[StageRun, Sequence[ShardEntry]], Manifest] = StageRun.publish,
) -> tuple[Manifest, bool]:
    """Run a stage: look it up, compute what is missing, publish.

    Args:
        run: the stage in its round.
        find: looks the result up; flows pass a Prefect task, as for the other two.
        map_shards: computes shards, in any order and anywhere, and yields their entries in the order of the specs.
        publish: publishes the manifest.

    Returns:
        The manifest, and whether it was computed now rather than found.
    """
    name = run.stage.name
    manifest = find(run)
    if manifest is not None:
        emit(Event("cached", name))
        return manifest, False
    done: list[ShardEntry] = []
    specs = run.stage.shards(run)
    while specs:
        total = len(done) + len(specs)
        emit(Event("started", name, done=len(done), total=total))
        for entry in map_shards(run, specs):
            done.append(entry)
            emit(Event("advanced", name, done=len(done), total=total))
        specs = run.stage.more_shards(run, done)
    manifest = publish(run, done)
    emit(Event("finished", name))
    return manifest, True


def content_of(manifest: Manifest) -> str:
    """Return what later stages see of a result: the content of its tables, or what `extra["digest"]` says it made.

    Training makes a model; its table also holds the tokens per second, which must not change what follows.
    """
    return str(manifest.extra.get("digest") or manifest.digest)


def _sums(tallies: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the sum of each figure over all tallies, sorted by name."""
    sums: Counter[str] = Counter()
    for tally in tallies:
        sums.update(tally)
    return dict(sorted(sums.items()))


def _cpu_seconds() -> float:
    """Return the processor time of this process and of its ended children."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


@contextmanager
def _disk_faults(scratch: Path) -> Iterator[None]:
    """Turn a full or read-only disk under the scratch folder into an error that says so."""
    try:
        yield
    except OSError as error:
        problem = disk_problem(error)
        if not problem:
            raise
        raise StorageError(
            problem,
            field=str(error.filename or scratch),
            remedy="Free space there, or choose another storage.scratch, and run again",
        ) from error
