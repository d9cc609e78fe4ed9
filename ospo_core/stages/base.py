"""A stage: a declaration of what it reads, writes and needs, together with its algorithm.

A stage is a pure function from the tables of earlier stages to a table of its own, computed shard by shard. Other parts
of the project derive what they need to know about it from the attributes declared here. `ospo_core.stages.run` binds a
stage to a round and runs it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
from pydantic import Field

from ospo_core.artifacts.manifest import Manifest, ShardEntry
from ospo_core.config import RoundConfig
from ospo_core.config.sections import Section
from ospo_core.schema import StageName

if TYPE_CHECKING:
    from ospo_core.artifacts.storage import Storage
    from ospo_core.stages.judge import Judge
    from ospo_core.stages.model_ref import ModelRef
    from ospo_core.stages.run import StageRun

Row = Mapping[str, Any]


class Phase(StrEnum):
    """What a stage holds in memory while it runs; consecutive stages of one phase share it."""

    TEXT = "text"
    """The text engine."""
    MODEL = "model"
    """The loaded model."""
    TRAINING = "training"
    """Nothing: a separate process does the work."""


class ShardSpec(Section):
    """One shard to compute: `name` also names its file; `params` holds what the stage needs besides `index`."""

    name: str
    index: int
    params: dict[str, str | int] = Field(default_factory=dict)


@dataclass(frozen=True)
class ShardResult:
    """A computed shard, not yet published.

    Args:
        table: rows in the schema of the stage's table.
        items_in: number of items offered (answers, images, prompts), to compare with kept + dropped.
        drops: number of dropped items by reason.
        counts: other figures, e.g. calls or tokens; the manifest has their sums over all shards.
        extra: facts for the manifest; if several shards have one of the same name, the last one counts.
    """

    table: pa.Table
    items_in: int
    drops: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, float] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


class Stage(ABC):
    """One stage of a round; instances hold no state.

    Attributes:
        name: its name, unique.
        version: incremented whenever a change of code changes the output for the same input.
        table: the table of `ospo_core.schema.TABLES` that it writes.
        reads: the stages whose results it reads.
        phase: what it holds in memory while it runs.
        follows: the stage in `reads` whose shards its own follow one to one; None where `shards` says otherwise.
        uses_model: whether the starting model changes the output.
        independent_items: whether each row depends on its own item only, so that some items can be recomputed alone.
    """

    name: ClassVar[StageName]
    version: ClassVar[int]
    table: ClassVar[str]
    reads: ClassVar[tuple[StageName, ...]] = ()
    phase: ClassVar[Phase]
    follows: ClassVar[StageName | None] = None
    uses_model: ClassVar[bool] = True
    independent_items: ClassVar[bool] = False

    @abstractmethod
    def fields(self, config: RoundConfig) -> dict[str, Any]:
        """Return the configuration that changes the output, and nothing else; it is part of the fingerprint."""

    def judge(self, config: RoundConfig, storage: Storage, model: ModelRef) -> Judge | None:
        """Return who judges pictures for this stage of a round that starts from `model`; by default nobody else.

        The judge's identity is part of the fingerprint.
        """
        return None

    @abstractmethod
    def run_shard(self, run: StageRun, spec: ShardSpec) -> ShardResult:
        """Compute one shard from `run` and `spec` only, so that every process always gets the same result."""

    def shards(self, run: StageRun) -> list[ShardSpec]:
        """Return all shards to compute; by default one for each shard of the stage that this one follows."""
        if self.follows is None:
            raise NotImplementedError(f"stage {self.name} follows no other stage, so it must define its shards")
        count = len(run.upstream[self.follows].shards)
        return [ShardSpec(name=shard_name(index), index=index) for index in range(count)]

    def more_shards(self, run: StageRun, done: Sequence[ShardEntry]) -> list[ShardSpec]:
        """Return further shards to compute once those of `done` are known; by default none.

        The result depends on `run` and `done` alone, so that a resumed run gets the same shards.
        """
        return []

    def finish(self, run: StageRun, manifest: Manifest) -> Manifest:
        """Return the manifest to publish.

        Args:
            run: the stage in its round.
            manifest: with all computed shards and the sums of their figures.

        Raises:
            StageError: the result cannot be used, e.g. no prompts or no pairs.
        """
        return manifest

    def uses_gpu(self, config: RoundConfig) -> bool:
        """Return whether a shard occupies a GPU on a machine that has one."""
        if self.phase is Phase.TEXT:
            return config.engine.kind != "endpoint"
        return config.model.device != "cpu"

    def gpus(self, run: StageRun) -> int:
        """Return the number of GPUs of this machine that a shard occupies."""
        return min(1, run.gpus_here()) if self.uses_gpu(run.config) else 0

    def lock(self, run: StageRun) -> AbstractContextManager[None]:
        """Return the lock that a process holds while it computes a shard; by default none."""
        return nullcontext()


def shard_name(index: int) -> str:
    """Return the name of a shard of items, the same in every stage: `part-00000`."""
    return f"part-{index:05d}"


NEUTRAL: Mapping[str, Any] = {"top_p": 1.0, "dense_top_p": 1.0, "structured_output": "auto"}
"""Options added after results were published, each with the value under which those results would be the same.

At that value they are no part of a fingerprint, so that the results stay valid.
"""


def options_of(section: Section, exclude: Collection[str] = ()) -> dict[str, Any]:
    """Return the options of a section for `Stage.fields`, without those at a value of `NEUTRAL`."""
    values = section.model_dump(mode="json", exclude=set(exclude))
    return {name: value for name, value in values.items() if name not in NEUTRAL or value != NEUTRAL[name]}
