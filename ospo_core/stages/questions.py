"""Stage `questions`: yes/no questions about every prompt and every perturbed prompt (docs/method.md, section 3.1)."""

from __future__ import annotations

from typing import Any, ClassVar

from ospo_core.config import RoundConfig
from ospo_core.prompts.decomposing import decompose_prompts
from ospo_core.prompts.families import family
from ospo_core.schema import StageName, table_from_rows
from ospo_core.stages.base import Phase, ShardResult, ShardSpec, Stage, engine_fields
from ospo_core.stages.run import StageRun


class QuestionsStage(Stage):
    """Reads `perturbations`, which also hold the base prompts, and writes `questions`."""

    name: ClassVar[StageName] = StageName.QUESTIONS
    version: ClassVar[int] = 1
    table: ClassVar[str] = "questions"
    reads: ClassVar[tuple[StageName, ...]] = (StageName.PERTURBATIONS,)
    phase: ClassVar[Phase] = Phase.TEXT
    follows: ClassVar[StageName | None] = StageName.PERTURBATIONS
    independent_items: ClassVar[bool] = True

    def fields(self, config: RoundConfig) -> dict[str, Any]:
        """Return the section, the engine and the seed."""
        return {
            "questions": config.questions.model_dump(mode="json"),
            "engine": engine_fields(config.engine),
            "seed": config.seed,
        }

    def run_shard(self, run: StageRun, spec: ShardSpec) -> ShardResult:
        """Decompose the prompts of one shard."""
        rows, drops, counts = decompose_prompts(
            run.text_engine(),
            family(run.config.model.family),
            run.rows(StageName.PERTURBATIONS, spec.index),
            run.config.questions,
            run.config.seed,
        )
        return ShardResult(
            table=table_from_rows("questions", rows),
            items_in=len(rows) + sum(drops.values()),
            drops=drops,
            counts=counts,
        )


STAGE = QuestionsStage()
