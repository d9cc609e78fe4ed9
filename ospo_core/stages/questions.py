"""Stage `questions`: yes/no questions about every prompt and every perturbed prompt (method, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from ospo_core.artifacts.manifest import ShardEntry
from ospo_core.config import RoundConfig
from ospo_core.prompts.decomposing import decompose_prompts
from ospo_core.prompts.families import family
from ospo_core.schema import StageName, table_from_rows
from ospo_core.stages.base import ShardResult, ShardSpec, Stage, StageContext, engine_fields, one_to_one


class QuestionsStage(Stage):
    """Reads `perturbations`, which hold the base prompts too, and writes `questions`."""

    name: ClassVar[StageName] = StageName.QUESTIONS
    table: ClassVar[str] = "questions"
    text_only: ClassVar[bool] = True
    by_item: ClassVar[bool] = True
    upstream: ClassVar[tuple[StageName, ...]] = (StageName.PERTURBATIONS,)

    def fields(self, config: RoundConfig) -> dict[str, Any]:
        """Return the section, the engine and the seed."""
        return {
            "questions": config.questions.model_dump(mode="json"),
            "engine": engine_fields(config.engine),
            "seed": config.seed,
        }

    def shards(self, ctx: StageContext, done: Sequence[ShardEntry]) -> list[ShardSpec]:
        """Return one unit a shard of perturbations."""
        return one_to_one(ctx.upstream[StageName.PERTURBATIONS], done)

    def run_shard(self, ctx: StageContext, spec: ShardSpec) -> ShardResult:
        """Decompose the prompts of one shard."""
        rows, drops, counts = decompose_prompts(
            ctx.text_engine(),
            family(ctx.config.model.family),
            ctx.rows(StageName.PERTURBATIONS, spec.index),
            ctx.config.questions,
            ctx.config.seed,
        )
        return ShardResult(
            table=table_from_rows("questions", rows),
            items_in=len(rows) + sum(drops.values()),
            drops=drops,
            counts=counts,
        )
