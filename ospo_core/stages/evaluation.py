"""Stage `evaluation`: parent and child draw held-out prompts from the same noise (docs/architecture.md, decision 8)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import Any, ClassVar

from ospo_core.artifacts.ids import digest_of
from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.tables import iter_rows
from ospo_core.config import RoundConfig
from ospo_core.evaluation.promotion import evaluation_extra, metric_column
from ospo_core.evaluation.prompts import EvalPrompt, load_evaluation_prompts
from ospo_core.evaluation.statistics import wilson_interval
from ospo_core.schema import ALL, CHILD, PARENT, StageName, table_from_rows
from ospo_core.stages.base import Phase, Row, ShardResult, ShardSpec, Stage, shard_name
from ospo_core.stages.model_ref import ModelRef
from ospo_core.stages.run import StageRun
from ospo_core.stages.training import trained_model

MODEL = "model"
"""Label of a model that is evaluated alone."""

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
    """Reads the trained model, writes `evaluation`, and puts the decision on promotion into `extra`."""

    name: ClassVar[StageName] = StageName.EVALUATION
    version: ClassVar[int] = 1
    table: ClassVar[str] = "evaluation"
    reads: ClassVar[tuple[StageName, ...]] = (StageName.TRAINING,)
    phase: ClassVar[Phase] = Phase.MODEL
    labels: ClassVar[tuple[str, ...]] = (PARENT, CHILD)

    def fields(self, config: RoundConfig) -> dict[str, Any]:
        """Return the section, the content of the held-out prompts, and the gate's settings."""
        return {
            "evaluation": config.evaluation.model_dump(mode="json", exclude={"batch_size", "prompts"}),
            "prompts": digest_of([prompt.model_dump() for prompt in load_evaluation_prompts(config.evaluation)]),
            "promotion": config.promotion.model_dump(mode="json"),
            "shard_size": config.storage.shard_size,
        }

    def shards(self, run: StageRun) -> list[ShardSpec]:
        """Return the slices of the held-out prompts, first all for the parent, then all for the child."""
        count = len(_slices(run.config))
        return [
            ShardSpec(name=f"{label}-{shard_name(index)}", index=index, params={"label": label})
            for label in self.labels
            for index in range(count)
        ]

    def run_shard(self, run: StageRun, spec: ShardSpec) -> ShardResult:
        """Draw and judge one slice with one of the models."""
        from ospo_core.evaluation.run import evaluate_model

        label, prompts = str(spec.params["label"]), _slices(run.config)[spec.index]
        rows = evaluate_model(run.image_model(self.model_of(run, label)), prompts, run.config.evaluation, label)
        return ShardResult(table=table_from_rows("evaluation", rows), items_in=len(rows), counts={"images": len(rows)})

    def finish(self, run: StageRun, manifest: Manifest) -> Manifest:
        """Put the decision and its figures into `extra`.

        Raises:
            StageError: `promotion.metric` asks for an oracle, and there is none.
        """
        rows = list(iter_rows(run.storage, manifest, list(_VERDICTS)))
        return manifest.model_copy(update={"extra": self.extra(run, rows)})

    def extra(self, run: StageRun, rows: Sequence[Row]) -> dict[str, Any]:
        """Return the decision and the judge's quality, and which models were compared."""
        before, after = ([row for row in rows if row["model"] == label] for label in self.labels)
        decided = evaluation_extra(before, after, run.config.evaluation, run.config.promotion)
        return {**decided, **{label: self.model_of(run, label).digest for label in self.labels}}

    def model_of(self, run: StageRun, label: str) -> ModelRef:
        """Return the model with this label."""
        return trained_model(run.upstream[StageName.TRAINING]) if label == CHILD else run.model


class ModelEvaluationStage(EvaluationStage):
    """Evaluates the starting model alone; nothing is compared or promoted."""

    reads: ClassVar[tuple[StageName, ...]] = ()
    labels: ClassVar[tuple[str, ...]] = (MODEL,)

    def fields(self, config: RoundConfig) -> dict[str, Any]:
        """Return the fields of `EvaluationStage` without the gate's settings."""
        return {**super().fields(config), "promotion": None}

    def extra(self, run: StageRun, rows: Sequence[Row]) -> dict[str, Any]:
        """Return the accuracy of every category, by the oracle if there is one, else by the model's own answers."""
        return {"accuracy": accuracy_by_category(rows, run.config.promotion.metric), MODEL: run.model.digest}


STAGE = EvaluationStage()

MODEL_EVALUATION: Stage = ModelEvaluationStage()
"""Evaluation of one model alone, outside a round."""


def accuracy_by_category(rows: Sequence[Row], metric: str) -> dict[str, Any]:
    """Return the metric used and, for `all` and every category, prompts, accuracy and 95 % interval.

    A prompt counts once, by the mean over its samples.

    Raises:
        StageError: the oracle was asked for and has not judged every picture.
    """
    used, column = metric_column(rows, metric)
    samples: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for row in rows:
        samples[row["category"], row["item_id"]].append(bool(row[column]))
    values: dict[str, list[float]] = defaultdict(list)
    for (category, _), verdicts in samples.items():
        for name in (ALL, category):
            values[name].append(fmean(verdicts))
    groups = {}
    for name, shares in sorted(values.items()):
        accuracy = fmean(shares)
        interval = wilson_interval(accuracy, len(shares))
        groups[name] = {"prompts": len(shares), "accuracy": accuracy, "low": interval.low, "high": interval.high}
    return {"metric": used, "groups": groups}


def _slices(config: RoundConfig) -> list[list[EvalPrompt]]:
    """Cut the held-out prompts into slices of the shard size."""
    prompts, size = load_evaluation_prompts(config.evaluation), config.storage.shard_size
    return [prompts[start : start + size] for start in range(0, len(prompts), size)]
