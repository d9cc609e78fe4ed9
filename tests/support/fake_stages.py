"""Two small stages for tests of caching, retries and resuming: numbers, and their squares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from ospo_core.artifacts.manifest import ShardEntry
from ospo_core.config import RoundConfig
from ospo_core.schema import StageName, table_from_rows
from ospo_core.stages import STAGES
from ospo_core.stages.base import Phase, ShardResult, ShardSpec, Stage, shard_name
from ospo_core.stages.run import StageRun

SHARDS = 3


@contextmanager
def two_stages_only() -> Iterator[NumbersStage]:
    """Let a round consist of numbers and squares while the block runs; give the first. The order of stages is kept."""
    known, numbers = dict(STAGES), NumbersStage()
    STAGES.clear()
    STAGES.update({StageName.PROMPTS: numbers, StageName.PERTURBATIONS: SquaresStage()})
    try:
        yield numbers
    finally:
        STAGES.clear()
        STAGES.update(known)


def _row(item: str, prompt: str) -> dict[str, Any]:
    return {
        "item_id": item,
        "category": "attribute",
        "sub_category": "color_1",
        "prompt": prompt,
        "concepts": [],
        "relations": [],
    }


class NumbersStage(Stage):
    """Writes one number per shard, in two waves; counts what it computes, and first does what `trouble` says.

    `offset` is added to every number, unknown to the fingerprint, like a model that answers differently the next time.
    """

    name: ClassVar[StageName] = StageName.PROMPTS
    version: ClassVar[int] = 1
    table: ClassVar[str] = "prompts"
    phase: ClassVar[Phase] = Phase.TEXT

    def __init__(self, trouble: Callable[[ShardSpec], None] = lambda spec: None) -> None:
        self.computed: Counter[str] = Counter()
        self.trouble = trouble
        self.offset = 0

    def fields(self, config: RoundConfig) -> dict[str, Any]:
        return {"seed": config.seed}

    def shards(self, run: StageRun) -> list[ShardSpec]:
        return [ShardSpec(name=shard_name(index), index=index) for index in range(2)]

    def more_shards(self, run: StageRun, done: Sequence[ShardEntry]) -> list[ShardSpec]:
        return [ShardSpec(name=shard_name(index), index=index) for index in range(len(done), SHARDS)]

    def run_shard(self, run: StageRun, spec: ShardSpec) -> ShardResult:
        self.trouble(spec)
        self.computed[spec.name] += 1
        rows = [_row(f"item{spec.index}", str(spec.index + run.config.seed + self.offset))]
        return ShardResult(table_from_rows("prompts", rows), items_in=2, drops={"odd": 1}, counts={"calls": 2})


class SquaresStage(NumbersStage):
    """Squares the numbers shard by shard."""

    name: ClassVar[StageName] = StageName.PERTURBATIONS
    reads: ClassVar[tuple[StageName, ...]] = (StageName.PROMPTS,)
    independent_items: ClassVar[bool] = True

    def fields(self, config: RoundConfig) -> dict[str, Any]:
        return {}

    def shards(self, run: StageRun) -> list[ShardSpec]:
        count = len(run.upstream[StageName.PROMPTS].shards)
        return [ShardSpec(name=shard_name(index), index=index) for index in range(count)]

    def more_shards(self, run: StageRun, done: Sequence[ShardEntry]) -> list[ShardSpec]:
        return []

    def run_shard(self, run: StageRun, spec: ShardSpec) -> ShardResult:
        self.trouble(spec)
        self.computed[spec.name] += 1
        numbers = run.rows(StageName.PROMPTS, spec.index)
        rows = [_row(row["item_id"], str(int(row["prompt"]) ** 2 + self.offset)) for row in numbers]
        return ShardResult(table_from_rows("prompts", rows), items_in=1)
