"""Stage `perturbations`: hard negatives and dense descriptions of every prompt (docs/method.md, section 2)."""

from __future__ import annotations

from typing import Any, ClassVar

from ospo_core.artifacts.manifest import Manifest
from ospo_core.config import RoundConfig
from ospo_core.prompts.families import family
from ospo_core.prompts.perturbing import perturb_prompts
from ospo_core.schema import StageName, table_from_rows
from ospo_core.stages.base import Phase, ShardResult, ShardSpec, Stage, options_of
from ospo_core.stages.run import StageRun
from ospo_core.stages.text import check_written, text_extra, text_fields


class PerturbationsStage(Stage):
    """Reads `prompts`, writes `perturbations`; a prompt without a usable variant leaves the round here."""

    name: ClassVar[StageName] = StageName.PERTURBATIONS
    version: ClassVar[int] = 1
    table: ClassVar[str] = "perturbations"
    reads: ClassVar[tuple[StageName, ...]] = (StageName.PROMPTS,)
    phase: ClassVar[Phase] = Phase.TEXT
    follows: ClassVar[StageName | None] = StageName.PROMPTS
    independent_items: ClassVar[bool] = True

    def fields(self, config: RoundConfig) -> dict[str, Any]:
        """Return the section, the engine and the seed."""
        return {"perturbations": options_of(config.perturbations), **text_fields(config)}

    def run_shard(self, run: StageRun, spec: ShardSpec) -> ShardResult:
        """Perturb the prompts of one shard."""
        engine = run.text_engine()
        prompts = run.rows(StageName.PROMPTS, spec.index)
        rows, drops, counts, raw = perturb_prompts(
            engine,
            family(run.config.model.family),
            prompts,
            run.config.perturbations,
            run.config.seed,
            run.config.engine.min_parsed,
        )
        return ShardResult(
            table=table_from_rows("perturbations", rows),
            items_in=len(rows) + sum(drops.values()),
            drops=drops,
            counts=counts,
            extra=text_extra(engine, raw),
        )

    def finish(self, run: StageRun, manifest: Manifest) -> Manifest:
        """Return the manifest with one raw answer per reason; raises StageError if no answer could be used."""
        return check_written(manifest)


STAGE = PerturbationsStage()
