"""The two stages of a benchmark: one model draws its prompts by its protocol, then evaluators or a judge score them.

They are an evaluation outside of rounds. Pictures are a result of their own, so that other scorers reuse them.
"""

from __future__ import annotations

from collections import Counter
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ospo_core.artifacts.ids import digest_of
from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.model_digest import model_digest
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.tables import iter_rows
from ospo_core.config import RoundConfig
from ospo_core.config.sections import EMBEDDED
from ospo_core.errors import ModelError, StageError
from ospo_core.evaluation.benchmarks.comparison import SUMMARY
from ospo_core.evaluation.benchmarks.gathering import (
    AskedJudge,
    Evaluators,
    Role,
    evaluator_folder,
    is_embedded,
    roles_of,
)
from ospo_core.evaluation.benchmarks.prompts import BenchmarkPrompt, load_benchmark
from ospo_core.evaluation.benchmarks.protocol import PROTOCOLS, protocol_of
from ospo_core.evaluation.benchmarks.scoring import Needs, Score, needs_of, score_of
from ospo_core.evaluation.benchmarks.summary import scored_by, summarise
from ospo_core.evaluation.judges import JudgedBy
from ospo_core.evaluation.prompts import EvalPrompt
from ospo_core.models.hub import pinned
from ospo_core.schema import StageName, table_from_rows
from ospo_core.stages.base import Phase, Row, ShardResult, ShardSpec, Stage, shard_name
from ospo_core.stages.judge import Judge, find_judge, judge_of, open_judge
from ospo_core.stages.model_ref import ModelRef
from ospo_core.stages.run import StageRun

if TYPE_CHECKING:
    pass

_DRAWN = ("item_id", "category", "prompt", "sample", "seed", "guidance", "tokens", "image")
_SCORED = ("item_id", "category", "prompt", "sample")


class BenchmarkPicturesStage(Stage):
    """Writes `benchmark_pictures`: what one model draws of all prompts, some hundred pictures per shard."""

    name: ClassVar[StageName] = StageName.IMAGES
    version: ClassVar[int] = 1
    table: ClassVar[str] = "benchmark_pictures"
    phase: ClassVar[Phase] = Phase.MODEL

    def fields(self, config: RoundConfig) -> dict[str, Any]:
        """Return the protocol as it is run, and what is drawn."""
        protocol = protocol_of(config.benchmark, config.evaluation)
        drawn = [[prompt.item_id, prompt.category, prompt.prompt] for prompt in _prompts(config)]
        return {
            "benchmark": protocol.name,
            "samples": protocol.samples,
            "seed": protocol.seed,
            "guidance": protocol.guidance,
            "temperature": protocol.temperature,
            "prompts": digest_of(drawn),
            "shard_size": config.storage.shard_size,
        }

    def shards(self, run: StageRun) -> list[ShardSpec]:
        """Return slices of the prompts."""
        return [ShardSpec(name=shard_name(index), index=index) for index in range(len(slices(run.config)))]

    def run_shard(self, run: StageRun, spec: ShardSpec) -> ShardResult:
        """Draw one slice of the prompts; seeds depend on the protocol, the prompt and the number of the picture."""
        from ospo_core.evaluation.run import draw_pictures

        protocol = protocol_of(run.config.benchmark, run.config.evaluation)
        names = ("samples", "guidance", "temperature", "seed")
        section = run.config.evaluation.model_copy(update={name: getattr(protocol, name) for name in names})
        prompts = [
            EvalPrompt(item_id=one.item_id, category=one.category, sub_category=one.category, prompt=one.prompt)
            for one in slices(run.config)[spec.index]
        ]
        drawn = draw_pictures(run.image_model(), prompts, section, "model")
        rows = [{name: row[name] for name in _DRAWN} for row in drawn]
        table = table_from_rows("benchmark_pictures", rows)
        return ShardResult(table=table, items_in=len(rows), counts={"images": len(rows)})


class BenchmarkScoresStage(Stage):
    """Reads the pictures, writes `benchmark`: a score per picture; the summary is in `extra`."""

    name: ClassVar[StageName] = StageName.EVALUATION
    version: ClassVar[int] = 1
    table: ClassVar[str] = "benchmark"
    reads: ClassVar[tuple[StageName, ...]] = (StageName.IMAGES,)
    follows: ClassVar[StageName | None] = StageName.IMAGES
    phase: ClassVar[Phase] = Phase.MODEL
    uses_model: ClassVar[bool] = False

    def fields(self, config: RoundConfig) -> dict[str, Any]:
        """Return what is asked about the pictures and how; evaluators and judges count by identity, see `judge`."""
        judged = is_judged(config)
        prompts = [prompt.model_dump(mode="json", by_alias=True) for prompt in _prompts(config)]
        fields = {"benchmark": protocol_of(config.benchmark, config.evaluation).name, "judged": judged}
        if not judged:
            jobs = [role.value for role in _roles(config) if is_embedded(config.benchmark, role)]
            limits = {"threshold": config.benchmark.threshold, "counting": config.benchmark.counting_threshold}
            fields |= {"oracle": jobs, "limits": limits}
        return {**fields, "prompts": digest_of(prompts), "family": config.model.family}

    def judge(self, config: RoundConfig, storage: Storage, model: ModelRef) -> Judge:
        """Return who scores: the judge of evaluations, or the evaluators that the prompts need.

        Raises:
            ModelError: one of them is not to be found, or cannot do its job.
        """
        if is_judged(config):
            return find_judge(config, storage, model).model_copy(update={"asking": None})
        found: dict[str, ModelRef] = {}
        for role in _roles(config):
            if not is_embedded(config.benchmark, role):
                folder = evaluator_folder(config.benchmark, role)
                path = str(getattr(config.benchmark, role.value))
                found[role.value] = ModelRef(digest=model_digest(folder), source=pinned(path, folder))
        return Judge(kind="model", evaluators=found)

    def run_shard(self, run: StageRun, spec: ShardSpec) -> ShardResult:
        """Score the pictures of one shard."""
        protocol, judged = protocol_of(run.config.benchmark, run.config.evaluation).name, is_judged(run.config)
        drawn, known = run.rows(StageName.IMAGES, spec.index), {one.item_id: one for one in _prompts(run.config)}
        needs = {name: _needs(run.config, known[name]) for name in {row["item_id"] for row in drawn}}
        scorer, size = _scorer(run), run.config.benchmark.batch_size
        rows: list[dict[str, Any]] = []
        drops: Counter[str] = Counter()
        try:
            for start in range(0, len(drawn), size):
                batch = drawn[start : start + size]
                pictures = [row["image"]["bytes"] for row in batch]
                found = scorer.gather(pictures, [needs[row["item_id"]] for row in batch])
                for row, evidence in zip(batch, found, strict=True):
                    score = score_of(protocol, known[row["item_id"]], evidence, judged)
                    if score.value is None:
                        drops[score.reason] += 1
                    elif not isfinite(score.value):
                        raise StageError(
                            "an evaluator computed no number",
                            field=f"benchmark, {row['item_id']}",
                            value=score.value,
                            remedy="Check the evaluator's weights",
                        )
                    else:
                        rows.append(_row(row, score))
        finally:
            if isinstance(scorer, AskedJudge):
                scorer.close()  # evaluators belong to the process
        table = table_from_rows("benchmark", rows)
        return ShardResult(table=table, items_in=len(drawn), drops=dict(drops), counts=dict(scorer.counts))

    def finish(self, run: StageRun, manifest: Manifest) -> Manifest:
        """Put the summary, the protocol and who scored into `extra`.

        Raises:
            StageError: no picture has a score.
        """
        rows = list(iter_rows(run.storage, manifest))
        if not rows:
            raise StageError(
                "no picture has a score", field="benchmark", value=manifest.drops, remedy="Use another benchmark.scorer"
            )
        protocol = protocol_of(run.config.benchmark, run.config.evaluation)
        summary = {
            **summarise(protocol.name, rows),
            "benchmark": protocol.name,
            "samples": protocol.samples,
            "guidance": protocol.guidance,
            "temperature": protocol.temperature,
            "sources": dict(protocol.sources),
            "changed": list(protocol.changed),
            "model": run.model.digest,
            "scored_by": _who(run, protocol.name, rows),
        }
        return manifest.model_copy(update={"extra": {**manifest.extra, SUMMARY: summary}})


BENCHMARK: dict[StageName, Stage] = {
    StageName.IMAGES: BenchmarkPicturesStage(),
    StageName.EVALUATION: BenchmarkScoresStage(),
}
"""The stages of a benchmark, in their order."""


def is_judged(config: RoundConfig) -> bool:
    """Return whether the judge of evaluations scores, instead of evaluators."""
    wanted = config.benchmark
    if wanted.scorer != "auto":
        return wanted.scorer == "judge"
    return wanted.name not in PROTOCOLS and config.model.family != "shapes"


def slices(config: RoundConfig) -> list[list[BenchmarkPrompt]]:
    """Cut the prompts into slices of about `storage.shard_size` pictures."""
    prompts, samples = _prompts(config), protocol_of(config.benchmark, config.evaluation).samples
    size = max(1, config.storage.shard_size // samples)
    return [prompts[start : start + size] for start in range(0, len(prompts), size)]


def _prompts(config: RoundConfig) -> list[BenchmarkPrompt]:
    return load_benchmark(config.benchmark, config.evaluation)


def _needs(config: RoundConfig, prompt: BenchmarkPrompt) -> Needs:
    name, family = protocol_of(config.benchmark, config.evaluation).name, config.model.family
    oracle = family == "shapes" or config.benchmark.vqa == EMBEDDED
    return needs_of(name, prompt, is_judged(config), family, oracle)


def _roles(config: RoundConfig) -> list[Role]:
    """Return the evaluators that some prompt needs."""
    roles = roles_of(_needs(config, prompt) for prompt in _prompts(config))
    if is_embedded(config.benchmark, Role.DETECTOR) and not any(
        _needs(config, prompt).text for prompt in _prompts(config)
    ):
        return [role for role in roles if role is not Role.CLIP]  # it names the colours itself
    return roles


def _scorer(run: StageRun) -> Evaluators | AskedJudge:
    """Return what scores: evaluators that the process keeps, or a judge."""
    settings, who = run.config.benchmark, judge_of(run)
    if who.evaluators is None:
        return AskedJudge(open_judge(run, run.model))

    refs = who.evaluators

    def load(role: Role) -> Any:
        from ospo_core.evaluation.benchmarks.evaluators import load_evaluator

        return load_evaluator(role, _verified(settings, role, refs[role.value]), run.config.model.device)

    identity = [who.identity(), settings]
    held: Evaluators = run.resources.evaluators(identity, lambda: Evaluators(load, settings))
    return held


def _verified(settings: Any, role: Role, ref: ModelRef) -> Path:
    """Return the folder of an evaluator, at the revision and with the content that the fingerprint counts."""
    folder = evaluator_folder(settings.model_copy(update={role.value: ref.source}), role)
    if model_digest(folder) != ref.digest:
        raise ModelError(
            "the evaluator's files have changed since the benchmark began",
            field=f"benchmark.{role.value}",
            value=str(folder),
            remedy="Run the benchmark again",
        )
    return folder


def _row(drawn: Row, score: Score) -> dict[str, Any]:
    parts = [{"name": name, "value": value} for name, value in score.parts.items()]
    return {**{name: drawn[name] for name in _SCORED}, "score": score.value, "parts": parts, "reason": score.reason}


def _who(run: StageRun, benchmark: str, rows: list[dict[str, Any]]) -> str:
    """Return who scored, as a sentence."""
    who = judge_of(run)
    if who.evaluators is None:
        return scored_by(benchmark, {}, JudgedBy(kind=who.kind, name=who.name).who, rows)
    names = {role.value: str(getattr(run.config.benchmark, role.value)) for role in _roles(run.config)}
    return scored_by(benchmark, names, "", rows)
