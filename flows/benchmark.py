"""A benchmark: one model, or two from the same noise, draws its prompts; evaluators or a judge score the pictures."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.steps import LOCAL, run_step
from ospo_core.artifacts.manifest import Manifest
from ospo_core.config import RoundConfig
from ospo_core.config.sections import Section
from ospo_core.rounds import Round
from ospo_core.schema import StageName
from ospo_core.stages.attempts import Attempt
from tasks.benchmark_tasks import write_page
from tasks.round_tasks import open_round


class Measured(Section):
    """One model on a benchmark: its path, its digest, and the manifests of its pictures and of their scores.

    Models that draw the same pictures share the scores, which name the one that drew them first.
    """

    name: str
    model: str
    pictures: Manifest
    scores: Manifest


class BenchmarkResult(Section):
    """Result of a benchmark.

    Args:
        measured: the model; before it, if there is one, the model that it is compared with.
        page: what to show of it.
        report: address of the HTML page.
    """

    measured: tuple[Measured, ...]
    page: dict[str, Any]
    report: str


@flow(flow_run_name="{config.benchmark.name}: {config.model.path}", task_runner=LOCAL, persist_result=False)
def benchmark(config: RoundConfig, against: str | None = None, refresh: bool = False) -> BenchmarkResult:
    """Run a benchmark; what is cached of it is not computed again.

    Args:
        config: `model`, `benchmark`, and for a file of prompts `evaluation` matter.
        against: another model, as for `model.path`, with which the model is compared by prompt.
        refresh: score again although the scores are cached; the pictures are kept.

    Raises:
        OspoError: prompts, a model or an evaluator are missing or not what they should be.
    """
    paths = [config.model.path] if against is None else [against, config.model.path]
    sections = [config.model.model_copy(update={"path": path}) for path in paths]
    rounds = [open_round(config.model_copy(update={"model": one}), kind="benchmark") for one in sections]
    measured = tuple(_measure(path, round, refresh) for path, round in zip(paths, rounds, strict=True))
    names, digests = [one.name for one in measured], [one.model for one in measured]
    page, report = write_page(config, names, [one.scores for one in measured], digests)
    return BenchmarkResult(measured=measured, page=page, report=report)


def _measure(name: str, round: Round, refresh: bool) -> Measured:
    """Draw and score with one model."""
    try:
        pictures, _ = run_step(round, StageName.IMAGES, {})
        upstream = {StageName.IMAGES: pictures}
        scores, _ = run_step(round, StageName.EVALUATION, upstream, Attempt() if refresh else None)
    finally:
        round.resources.release()
    return Measured(name=name, model=round.model.digest, pictures=pictures, scores=scores)
