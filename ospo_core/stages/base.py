"""What a stage is: a pure function from upstream tables to a table, cut into shards, with an identity of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from ospo_core.artifacts.manifest import Manifest, ShardEntry
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.tables import read_shard
from ospo_core.config import RoundConfig
from ospo_core.config.sections import EngineConfig, Section
from ospo_core.engines import TextEngine
from ospo_core.schema import StageName
from ospo_core.stages.model_ref import ModelRef, model_folder
from ospo_core.stages.redo import Redo, chosen_items
from ospo_core.stages.resources import Resources

if TYPE_CHECKING:
    from ospo_core.models.base import UnifiedModel

ITEMS_IN = "items_in"
"""Name among a shard's counts of the items that were offered to it."""

Row = Mapping[str, Any]


class ShardSpec(Section):
    """One unit of work: `name` is also the file's name; `params` are what the stage needs to know beside `index`."""

    name: str
    index: int
    params: dict[str, str | int] = Field(default_factory=dict)


@dataclass(frozen=True)
class ShardResult:
    """What one unit of work gives.

    Args:
        table: rows in the schema of the stage's table.
        items_in: how many were offered (answers, images, prompts), so that kept + dropped can be compared with it.
        drops: reason to count.
        counts: further figures, e.g. calls or tokens; those of all shards are added up.
        extra: facts for the manifest.
    """

    table: pa.Table
    items_in: int
    drops: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, float] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What a whole stage gives: the shards of the manifest, and its figures."""

    shards: tuple[ShardEntry, ...]
    items_in: int
    drops: Mapping[str, int]
    counts: Mapping[str, float] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StageContext:
    """Everything a stage may look at.

    Args:
        config: the round's configuration.
        storage: where artifacts are.
        model: the model that the round starts from.
        upstream: manifests of the stages that this one reads.
        resources: owner of the text engine and the loaded model.
        redo: where the stage is done over, which attempt it is and of which items.
    """

    config: RoundConfig
    storage: Storage
    model: ModelRef
    upstream: Mapping[StageName, Manifest]
    resources: Resources
    redo: Redo | None = None

    @property
    def scratch(self) -> Path:
        """Local folder for models, exports and training checkpoints."""
        return Path(self.config.storage.scratch).expanduser()

    @property
    def model_digest(self) -> str:
        """Identity of the starting model."""
        return self.model.digest

    @cached_property
    def model_folder(self) -> Path:
        """Local folder of the starting model, fetched when first asked for."""
        return model_folder(self.model, self.storage, self.scratch)

    def text_engine(self) -> TextEngine:
        """Return the text engine of the starting model."""
        return self.resources.text_engine(self.config.engine, self.model_folder, self.model_digest, self.scratch)

    def image_model(self, ref: ModelRef | None = None) -> UnifiedModel:
        """Return the loaded starting model, or another one."""
        wanted = ref or self.model
        folder = model_folder(wanted, self.storage, self.scratch) if ref else self.model_folder
        return self.resources.image_model(self.config.model, folder, wanted.digest)

    def gpus_here(self) -> int:
        """Return how many GPUs of this machine the round may use."""
        if self.config.model.device == "cpu":
            return 0
        import torch

        return torch.cuda.device_count()

    @property
    def is_partial(self) -> bool:
        """Whether only some items are done over, and the rows of the others are kept."""
        return self.redo is not None and bool(self.redo.where)

    def table(self, stage: StageName, index: int) -> pa.Table:
        """Return one shard of an upstream stage; of a partial redo only the rows of the chosen items."""
        table = read_shard(self.storage, self.upstream[stage], index)
        if not self.is_partial:
            return table
        return table.filter(pc.is_in(table["item_id"], pa.array(sorted(self.chosen(index)), pa.string())))

    def rows(self, stage: StageName, index: int) -> list[dict[str, Any]]:
        """Return the rows of `table`."""
        rows: list[dict[str, Any]] = self.table(stage, index).to_pylist()
        return rows

    def chosen(self, index: int) -> frozenset[str]:
        """Return the items of shard `index` that a partial redo does over.

        Raises:
            ConfigError: the condition cannot be used.
        """
        where = self.redo.where if self.redo is not None else ""
        return chosen_items(read_shard(self.storage, self.upstream[StageName.PROMPTS], index), where)


class Stage(ABC):
    """One stage of a round; instances hold no state.

    Attributes:
        name: which stage.
        table: its table in `ospo_core.schema.TABLES`.
        version: raised when the code changes what comes out for the same input.
        upstream: stages whose manifests it reads.
        uses_model: False where only `upstream` and the configuration matter, not the starting model.
        by_item: True where a row depends on its own item alone, so that some items can be done over without the others.
        text_only: True where the text engine does all the work.
    """

    name: ClassVar[StageName]
    table: ClassVar[str]
    version: ClassVar[int] = 1
    upstream: ClassVar[tuple[StageName, ...]] = ()
    uses_model: ClassVar[bool] = True
    by_item: ClassVar[bool] = False
    text_only: ClassVar[bool] = False

    @abstractmethod
    def fields(self, config: RoundConfig) -> dict[str, Any]:
        """Return the configuration that changes the output, and nothing else; part of the fingerprint."""

    @abstractmethod
    def shards(self, ctx: StageContext, done: Sequence[ShardEntry]) -> list[ShardSpec]:
        """Return the next wave of units, given the entries of all earlier ones; an empty list ends the stage."""

    @abstractmethod
    def run_shard(self, ctx: StageContext, spec: ShardSpec) -> ShardResult:
        """Compute one unit from `ctx` and `spec` alone; it may be called again, elsewhere, with the same result."""

    def gpus(self, ctx: StageContext) -> int:
        """Return how many GPUs a unit of this stage holds while it runs."""
        elsewhere = self.text_only and ctx.config.engine.kind == "endpoint"
        return 0 if elsewhere else min(1, ctx.gpus_here())

    def alone(self, ctx: StageContext) -> AbstractContextManager[None]:
        """Return what a run holds while it computes and publishes a unit: nothing, where runs do not disturb it."""
        return nullcontext()

    def finalise(self, ctx: StageContext, done: Sequence[ShardEntry]) -> Outcome:
        """Turn the published units into the stage's outcome; by default they are its shards and figures add up."""
        return Outcome(
            shards=tuple(done),
            items_in=items_in(done),
            drops=total(entry.drops for entry in done),
            counts=figures(done),
            extra=merged(entry.extra for entry in done),
        )


def items_in(done: Sequence[ShardEntry]) -> int:
    """Return how many items were offered to these units together."""
    return int(sum(entry.counts[ITEMS_IN] for entry in done))


def figures(done: Sequence[ShardEntry]) -> dict[str, float]:
    """Add up the further figures of these units."""
    return {name: count for name, count in total(entry.counts for entry in done).items() if name != ITEMS_IN}


def total(tallies: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up tallies by key; keys are sorted."""
    sums: Counter[str] = Counter()
    for tally in tallies:
        sums.update(tally)
    return dict(sorted(sums.items()))


def merged(facts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Put the facts of all shards into one mapping; later ones win."""
    result: dict[str, Any] = {}
    for fact in facts:
        result.update(fact)
    return result


def one_to_one(upstream: Manifest, done: Sequence[ShardEntry]) -> list[ShardSpec]:
    """Return one unit for each shard of `upstream`, all in one wave."""
    if done:
        return []
    return [ShardSpec(name=shard_name(index), index=index) for index in range(len(upstream.shards))]


def shard_name(index: int) -> str:
    """Return the name of an item shard, the same in every stage: `part-00000`."""
    return f"part-{index:05d}"


def engine_fields(config: EngineConfig) -> dict[str, Any]:
    """Return what of an engine changes the text: its kind and type, not how much memory it takes."""
    return config.model_dump(mode="json", include={"kind", "dtype", "max_model_len", "served_model"})
