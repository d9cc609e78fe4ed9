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
from ospo_core.stages.base import ShardResult, ShardSpec, Stage, StageContext, one_to_one, shard_name

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
    """Writes one number a shard; counts what it computes, and does first what `trouble` says.

    `offset` is added to every number, unknown to the fingerprint, as where a model answers otherwise the next time.
    """

    name: ClassVar[StageName] = StageName.PROMPTS
    table: ClassVar[str] = "prompts"

    def __init__(self, trouble: Callable[[ShardSpec], None] = lambda spec: None) -> None:
        self.computed: Counter[str] = Counter()
        self.trouble = trouble
        self.offset = 0

    def fields(self, config: RoundConfig) -> dict[str, Any]:
        return {"seed": config.seed}

    def shards(self, ctx: StageContext, done: Sequence[ShardEntry]) -> list[ShardSpec]:
        if len(done) >= SHARDS:
            return []
        wave = range(2) if not done else range(2, SHARDS)
        return [ShardSpec(name=shard_name(index), index=index) for index in wave]

    def run_shard(self, ctx: StageContext, spec: ShardSpec) -> ShardResult:
        self.trouble(spec)
        self.computed[spec.name] += 1
        rows = [_row(f"item{spec.index}", str(spec.index + ctx.config.seed + self.offset))]
        return ShardResult(table_from_rows("prompts", rows), items_in=2, drops={"odd": 1}, counts={"calls": 2})


class SquaresStage(NumbersStage):
    """Squares the numbers shard by shard."""

    name: ClassVar[StageName] = StageName.PERTURBATIONS
    upstream: ClassVar[tuple[StageName, ...]] = (StageName.PROMPTS,)
    by_item: ClassVar[bool] = True

    def fields(self, config: RoundConfig) -> dict[str, Any]:
        return {}

    def shards(self, ctx: StageContext, done: Sequence[ShardEntry]) -> list[ShardSpec]:
        return one_to_one(ctx.upstream[StageName.PROMPTS], done)

    def run_shard(self, ctx: StageContext, spec: ShardSpec) -> ShardResult:
        self.trouble(spec)
        self.computed[spec.name] += 1
        numbers = ctx.rows(StageName.PROMPTS, spec.index)
        rows = [_row(row["item_id"], str(int(row["prompt"]) ** 2 + self.offset)) for row in numbers]
        return ShardResult(table_from_rows("prompts", rows), items_in=1)
