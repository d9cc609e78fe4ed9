"""Stage `evaluation`: parent and child draw the same held-out prompts with the same noise (design, decision 8)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ospo_core.artifacts.ids import digest_of
from ospo_core.artifacts.manifest import ShardEntry
from ospo_core.artifacts.tables import iter_rows
from ospo_core.config import RoundConfig
from ospo_core.evaluation import CHILD, PARENT, load_evaluation_prompts
from ospo_core.schema import StageName, table_from_rows
from ospo_core.stages.base import (
    Outcome,
    Row,
    ShardResult,
    ShardSpec,
    Stage,
    StageContext,
    figures,
    items_in,
    shard_name,
)
from ospo_core.stages.fingerprint import unpublished
from ospo_core.stages.model_ref import ModelRef
from ospo_core.stages.training import trained_model

if TYPE_CHECKING:
    from ospo_core.evaluation import EvalPrompt

MODEL = "model"
"""Label of a model that is evaluated by itself."""

_VERDICTS = (
    "item_id",
    "model",
    "category",
    "sub_category",
    "prompt",
    "sample",
    "seed",
    "guidance",
    "vqa_score",
    "vqa_correct",
    "oracle_correct",
)


class EvaluationStage(Stage):
    """Reads the trained model, writes `evaluation`, and decides about promotion in `extra`."""

    name: ClassVar[StageName] = StageName.EVALUATION
    table: ClassVar[str] = "evaluation"
    upstream: ClassVar[tuple[StageName, ...]] = (StageName.TRAINING,)
    labels: ClassVar[tuple[str, ...]] = (PARENT, CHILD)

    def fields(self, config: RoundConfig) -> dict[str, Any]:
        """Return the section, the content of the held-out prompts, and the gate's settings."""
        return {
            "evaluation": config.evaluation.model_dump(mode="json", exclude={"batch_size", "prompts"}),
            "prompts": digest_of([prompt.model_dump() for prompt in load_evaluation_prompts(config.evaluation)]),
            "promotion": config.promotion.model_dump(mode="json"),
            "shard_size": config.storage.shard_size,
        }

    def shards(self, ctx: StageContext, done: Sequence[ShardEntry]) -> list[ShardSpec]:
        """Return the slices of the held-out prompts, first all for the parent, then all for the child."""
        if done:
            return []
        count = len(_slices(ctx.config))
        return [
            ShardSpec(name=f"{label}-{shard_name(index)}", index=index, params={"label": label})
            for label in self.labels
            for index in range(count)
        ]

    def run_shard(self, ctx: StageContext, spec: ShardSpec) -> ShardResult:
        """Draw and judge one slice with one of the models."""
        from ospo_core.evaluation.run import evaluate_model

        label, prompts = str(spec.params["label"]), _slices(ctx.config)[spec.index]
        rows = evaluate_model(ctx.image_model(self.model_of(ctx, label)), prompts, ctx.config.evaluation, label)
        return ShardResult(table=table_from_rows("evaluation", rows), items_in=len(rows), counts={"images": len(rows)})

    def finalise(self, ctx: StageContext, done: Sequence[ShardEntry]) -> Outcome:
        """Decide, and keep the decision with its figures in `extra`.

        Raises:
            StageError: `promotion.metric` asks for an oracle that there is not.
        """
        rows = list(self.verdicts(ctx, done))
        return Outcome(
            shards=tuple(done), items_in=items_in(done), drops={}, counts=figures(done), extra=self.extra(ctx, rows)
        )

    def extra(self, ctx: StageContext, rows: Sequence[Row]) -> dict[str, Any]:
        """Return the decision and the judge's quality, and which models were compared."""
        from ospo_core.evaluation import evaluation_extra

        before, after = ([row for row in rows if row["model"] == label] for label in self.labels)
        decided = evaluation_extra(before, after, ctx.config.evaluation, ctx.config.promotion)
        return {**decided, **{label: self.model_of(ctx, label).digest for label in self.labels}}

    def model_of(self, ctx: StageContext, label: str) -> ModelRef:
        """Return the model behind a label."""
        return trained_model(ctx.upstream[StageName.TRAINING]) if label == CHILD else ctx.model

    def verdicts(self, ctx: StageContext, done: Sequence[ShardEntry]) -> Iterator[Row]:
        """Yield the rows without tokens and pictures."""
        yield from iter_rows(ctx.storage, unpublished(ctx, self, done), list(_VERDICTS))


class ModelEvaluationStage(EvaluationStage):
    """Evaluates the starting model by itself; nothing is compared or promoted."""

    upstream: ClassVar[tuple[StageName, ...]] = ()
    labels: ClassVar[tuple[str, ...]] = (MODEL,)

    def fields(self, config: RoundConfig) -> dict[str, Any]:
        """Return what `EvaluationStage` does, without the gate's settings."""
        return {**super().fields(config), "promotion": None}

    def extra(self, ctx: StageContext, rows: Sequence[Row]) -> dict[str, Any]:
        """Return the accuracy of every category, by oracle (where there is one) or by the model's own answers."""
        from ospo_core.stages.accuracy import accuracy_by_category

        return {"accuracy": accuracy_by_category(rows, ctx.config.promotion.metric), MODEL: ctx.model_digest}


def _slices(config: RoundConfig) -> list[list[EvalPrompt]]:
    """Cut the held-out prompts into slices of the shard size."""
    prompts, size = load_evaluation_prompts(config.evaluation), config.storage.shard_size
    return [prompts[start : start + size] for start in range(0, len(prompts), size)]
