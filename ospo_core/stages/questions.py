"""Stage `questions`: yes/no questions about every prompt and every perturbed prompt (docs/method.md, section 3.1)."""

from __future__ import annotations

from typing import Any, ClassVar

from ospo_core.artifacts.manifest import Manifest
from ospo_core.config import RoundConfig
from ospo_core.prompts.decomposing import decompose_prompts
from ospo_core.prompts.families import family
from ospo_core.schema import StageName, table_from_rows
from ospo_core.stages.base import Phase, ShardResult, ShardSpec, Stage, options_of
from ospo_core.stages.run import StageRun
from ospo_core.stages.text import check_written, text_extra, text_fields


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
        return {"questions": options_of(config.questions), **text_fields(config)}

    def run_shard(self, run: StageRun, spec: ShardSpec) -> ShardResult:
        """Decompose the prompts of one shard."""
        engine = run.text_engine()
        rows, drops, counts, raw = decompose_prompts(
            engine,
            family(run.config.model.family),
            run.rows(StageName.PERTURBATIONS, spec.index),
            run.config.questions,
            run.config.seed,
            run.config.engine.min_parsed,
        )
        return ShardResult(
            table=table_from_rows("questions", rows),
            items_in=len(rows) + sum(drops.values()),
            drops=drops,
            counts=counts,
            extra=text_extra(engine, raw),
        )

    def finish(self, run: StageRun, manifest: Manifest) -> Manifest:
        """Return the manifest with one raw answer per reason; raises StageError if no answer could be used."""
        return check_written(manifest)


STAGE = QuestionsStage()
