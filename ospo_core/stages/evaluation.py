"""Stage `evaluation`: parent and child draw held-out prompts from the same noise (docs/architecture.md, decision 8)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from enum import StrEnum
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from ospo_core.artifacts.ids import digest_of
from ospo_core.artifacts.manifest import Manifest, ShardEntry
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.tables import iter_rows, load_shard_entry, read_entry
from ospo_core.config import RoundConfig
from ospo_core.errors import DamagedArtifactError
from ospo_core.evaluation.judges import ANSWERS, NEITHER, WITHOUT_PROBABILITIES, JudgedBy, whole_question
from ospo_core.evaluation.promotion import evaluation_extra, judge_in_words, metric_column
from ospo_core.evaluation.prompts import EvalPrompt, load_evaluation_prompts
from ospo_core.evaluation.statistics import wilson_interval
from ospo_core.schema import ALL, CHILD, PARENT, StageName, table_from_rows
from ospo_core.stages.base import Phase, Row, ShardResult, ShardSpec, Stage, shard_name
from ospo_core.stages.benchmark_gate import decision_extra, gate_fields
from ospo_core.stages.heldout_questions import ASKED_WHOLE, asking_fields, heldout_questions
from ospo_core.stages.judge import Judge, find_judge, judge_of, open_judge
from ospo_core.stages.model_ref import ModelRef, trained_model
from ospo_core.stages.run import StageRun

if TYPE_CHECKING:
    pass

MODEL = "model"
"""Label of a model that is evaluated alone."""

_QUESTIONS = "questions"
"""Name of the shard of the held-out prompts' questions."""

_NOT_FIELDS = {"batch_size", "prompts", "judge", "judge_url", "judge_model"}

_NOT_PROMOTION_FIELDS = {"people_prompts"}
"""People answer after the evaluation; how many of them are waited for changes nothing in it."""

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


_STEP, _LABEL = "step", "label"


class Step(StrEnum):
    """What a shard of the evaluation does; only one model, or the text engine, is in memory at a time."""

    ASK = "ask"
    """Decompose the held-out prompts that come without questions."""
    DRAW = "draw"
    """Draw a slice of the prompts with one of the models."""
    JUDGE = "judge"
    """Judge the pictures of a `DRAW`."""


class EvaluationStage(Stage):
    """Reads the trained model, writes `evaluation`, and puts the decision on promotion into `extra`.

    All pictures are drawn before the first is judged. The drawn ones are kept in shards of their own, which the
    manifest does not list: its shards are the judged ones.
    """

    name: ClassVar[StageName] = StageName.EVALUATION
    version: ClassVar[int] = 3
    table: ClassVar[str] = "evaluation"
    reads: ClassVar[tuple[StageName, ...]] = (StageName.TRAINING,)
    phase: ClassVar[Phase] = Phase.MODEL
    labels: ClassVar[tuple[str, ...]] = (PARENT, CHILD)

    def fields(self, config: RoundConfig) -> dict[str, Any]:
        """Return the section, the content of the held-out prompts, and the gate's settings.

        The judge is an ingredient by its identity, see `judge`; how questions are written counts if any are.
        """
        return {**self.own_fields(config), **gate_fields(config)}

    def own_fields(self, config: RoundConfig) -> dict[str, Any]:
        """Return the fields without those of a benchmark that is the gate."""
        prompts = load_evaluation_prompts(config.evaluation)
        asking = {} if all(prompt.questions for prompt in prompts) else {"asking": asking_fields(config)}
        return {
            "evaluation": config.evaluation.model_dump(mode="json", exclude=_NOT_FIELDS),
            "prompts": digest_of([prompt.model_dump() for prompt in prompts]),
            "promotion": config.promotion.model_dump(mode="json", exclude=_NOT_PROMOTION_FIELDS),
            "shard_size": config.storage.shard_size,
            **asking,
        }

    def judge(self, config: RoundConfig, storage: Storage, model: ModelRef) -> Judge:
        """Return who judges, see `find_judge`."""
        return find_judge(config, storage, model)

    def shards(self, run: StageRun) -> list[ShardSpec]:
        """Return the questions, if any are missing, and the slices of the held-out prompts to draw.

        The parent draws last, since in a first round it is also the judge and stays loaded.
        """
        missing = any(not prompt.questions for prompt in load_evaluation_prompts(run.config.evaluation))
        asking = [ShardSpec(name=_QUESTIONS, index=0, params={_STEP: Step.ASK.value})] if missing else []
        return asking + [spec for label in reversed(self.labels) for spec in _specs(run, Step.DRAW, label)]

    def more_shards(self, run: StageRun, done: Sequence[ShardEntry]) -> list[ShardSpec]:
        """Return the slices to judge, first all of the parent, then all of the child, once all are drawn."""
        wanted = [spec for label in self.labels for spec in _specs(run, Step.JUDGE, label)]
        known = {entry.name for entry in done}
        return [spec for spec in wanted if spec.name not in known]

    def run_shard(self, run: StageRun, spec: ShardSpec) -> ShardResult:
        """Ask, draw or judge."""
        step = Step(str(spec.params[_STEP]))
        if step is Step.ASK:
            prompts = load_evaluation_prompts(run.config.evaluation)
            return heldout_questions(run, [prompt for prompt in prompts if not prompt.questions])
        label = str(spec.params[_LABEL])
        if step is Step.JUDGE:
            return self._judged(run, label, spec.index)
        from ospo_core.evaluation.run import draw_pictures

        loaded, prompts = run.image_model(self.model_of(run, label)), _slices(run.config)[spec.index]
        rows = draw_pictures(loaded, prompts, run.config.evaluation, label)
        return ShardResult(table=table_from_rows("evaluation", rows), items_in=0, counts={"images": len(rows)})

    def _judged(self, run: StageRun, label: str, index: int) -> ShardResult:
        """Judge the pictures that one model drew of one slice."""
        from ospo_core.evaluation.run import judge_pictures

        drawn = _published(run, _shard(Step.DRAW, label, index)).to_pylist()
        judge = open_judge(run, self.model_of(run, label))
        try:
            rows = judge_pictures(judge, drawn, _questions(run, index), run.config.evaluation.batch_size)
        finally:
            judge.close()
        answers = sum(len(row["answers"]) for row in rows)
        counts = {**judge.counts, ANSWERS: answers}
        return ShardResult(table=table_from_rows("evaluation", rows), items_in=len(rows), counts=counts)

    def finish(self, run: StageRun, manifest: Manifest) -> Manifest:
        """List the judged shards only; put the decision, its figures and the judge into `extra`.

        Raises:
            StageError: `promotion.metric` asks for an oracle, and there is none.
        """
        judged = {spec.name for label in self.labels for spec in _specs(run, Step.JUDGE, label)}
        shards = tuple(entry for entry in manifest.shards if entry.name in judged)
        listed = manifest.model_copy(update={"shards": shards, "rows": sum(entry.rows for entry in shards)})
        judged_by = _judged_by(run, manifest)
        extra = self.extra(run, list(iter_rows(run.storage, listed, list(_VERDICTS))), judged_by)
        return listed.model_copy(update={"extra": {**extra, "judged_by": judged_by.model_dump(mode="json")}})

    def extra(self, run: StageRun, rows: Sequence[Row], judged_by: JudgedBy) -> dict[str, Any]:
        """Return the decision and the judge's quality, and which models were compared."""
        before, after = ([row for row in rows if row["model"] == label] for label in self.labels)
        decided = evaluation_extra(before, after, run.config.evaluation, run.config.promotion, judged_by)
        return {**decision_extra(run, decided), **{label: self.model_of(run, label).digest for label in self.labels}}

    def model_of(self, run: StageRun, label: str) -> ModelRef:
        """Return the model with this label."""
        return trained_model(run.upstream[StageName.TRAINING]) if label == CHILD else run.model


class ModelEvaluationStage(EvaluationStage):
    """Evaluates the starting model alone; nothing is compared or promoted."""

    reads: ClassVar[tuple[StageName, ...]] = ()
    labels: ClassVar[tuple[str, ...]] = (MODEL,)

    def fields(self, config: RoundConfig) -> dict[str, Any]:
        """Return the fields of `EvaluationStage` without the gate's settings."""
        return {**self.own_fields(config), "promotion": None}

    def extra(self, run: StageRun, rows: Sequence[Row], judged_by: JudgedBy) -> dict[str, Any]:
        """Return the accuracy of every category, by the oracle if there is one, else by the judge."""
        accuracy = accuracy_by_category(rows, run.config.promotion.metric)
        return {
            "accuracy": {**accuracy, "judge": judge_in_words(accuracy["metric"], judged_by)},
            MODEL: run.model.digest,
        }


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


def _specs(run: StageRun, step: Step, label: str) -> list[ShardSpec]:
    """Return the shards of one step with the pictures of one model."""
    return [
        ShardSpec(name=_shard(step, label, index), index=index, params={_STEP: step.value, _LABEL: label})
        for index in range(len(_slices(run.config)))
    ]


def _shard(step: Step, label: str, index: int) -> str:
    """Return the name of a shard of one step: `drawn-parent-part-00000` before it is judged, then without `drawn-`."""
    return f"{'drawn-' if step is Step.DRAW else ''}{label}-{shard_name(index)}"


def _published(run: StageRun, name: str) -> pa.Table:
    """Return the rows of a shard that an earlier step of this evaluation has published.

    Raises:
        DamagedArtifactError: it is missing or damaged.
    """
    entry = load_shard_entry(run.storage, run.prefix, name)
    if entry is None:
        raise DamagedArtifactError(
            "the shard is missing, although a later step needs it", field=f"{run.prefix}/{name}", remedy="Run again"
        )
    return read_entry(run.storage, run.prefix, entry)


def _questions(run: StageRun, index: int) -> dict[str, list[str]]:
    """Return the questions of every prompt of a slice: its own, those written for it, or one about the whole prompt."""
    prompts = _slices(run.config)[index]
    written: dict[str, list[str]] = {}
    if not all(prompt.questions for prompt in prompts):
        written = {row["item_id"]: row["questions"] for row in _published(run, _QUESTIONS).to_pylist()}
    whole = run.config.model.family
    return {
        prompt.item_id: prompt.questions or written.get(prompt.item_id) or [whole_question(prompt.prompt, whole)]
        for prompt in prompts
    }


def _judged_by(run: StageRun, manifest: Manifest) -> JudgedBy:
    """Return who judged, with how many questions; `manifest` has the shards of all steps."""
    who = judge_of(run)
    asked = next((entry for entry in manifest.shards if entry.name == _QUESTIONS), None)
    return JudgedBy(
        kind=who.kind,
        name=who.name,
        answers=int(manifest.counts[ANSWERS]),
        without_probabilities=int(manifest.counts.get(WITHOUT_PROBABILITIES, 0)),
        neither=int(manifest.counts.get(NEITHER, 0)),
        decomposed=asked.rows if asked is not None else 0,
        whole=sum(int(count) for name, count in asked.counts.items() if name.startswith(ASKED_WHOLE)) if asked else 0,
        questions_by=who.asking.digest if who.asking is not None else "",
    )
