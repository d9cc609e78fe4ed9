"""Stage `perturbations`: hard negatives and dense descriptions of every prompt (method, section 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from ospo_core.artifacts.manifest import ShardEntry
from ospo_core.config import RoundConfig
from ospo_core.prompts.families import family
from ospo_core.prompts.perturbing import perturb_prompts
from ospo_core.schema import StageName, table_from_rows
from ospo_core.stages.base import ShardResult, ShardSpec, Stage, StageContext, engine_fields, one_to_one


class PerturbationsStage(Stage):
    """Reads `prompts`, writes `perturbations`; a prompt of which no variant is left leaves the round here."""

    name: ClassVar[StageName] = StageName.PERTURBATIONS
    table: ClassVar[str] = "perturbations"
    text_only: ClassVar[bool] = True
    by_item: ClassVar[bool] = True
    upstream: ClassVar[tuple[StageName, ...]] = (StageName.PROMPTS,)

    def fields(self, config: RoundConfig) -> dict[str, Any]:
        """Return the section, the engine and the seed."""
        return {
            "perturbations": config.perturbations.model_dump(mode="json"),
            "engine": engine_fields(config.engine),
            "seed": config.seed,
        }

    def shards(self, ctx: StageContext, done: Sequence[ShardEntry]) -> list[ShardSpec]:
        """Return one unit a shard of prompts."""
        return one_to_one(ctx.upstream[StageName.PROMPTS], done)

    def run_shard(self, ctx: StageContext, spec: ShardSpec) -> ShardResult:
        """Perturb the prompts of one shard."""
        prompts = ctx.rows(StageName.PROMPTS, spec.index)
        rows, drops, counts = perturb_prompts(
            ctx.text_engine(), family(ctx.config.model.family), prompts, ctx.config.perturbations, ctx.config.seed
        )
        return ShardResult(
            table=table_from_rows("perturbations", rows),
            items_in=len(rows) + sum(drops.values()),
            drops=drops,
            counts=counts,
        )
