"""The tasks around the stages of a benchmark: its record, and its page in the storage and in the Prefect UI."""

from __future__ import annotations

from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact

from ospo_core.artifacts.manifest import Manifest
from ospo_core.config import RoundConfig
from ospo_core.evaluation.benchmarks.comparison import page_of
from ospo_core.report.benchmark import markdown_page, write_html
from ospo_core.rounds import Round
from ospo_core.rounds.records import record_round
from tasks.credentials import open_storage
from tasks.task_options import RETRIED, UNCACHED


@task(task_run_name="record the benchmark", **UNCACHED, **RETRIED)
def record_benchmark(round: Round) -> None:
    """Record the benchmark of a model that is the gate of a round, so that its results are kept and found again."""
    record_round(round)


@task(task_run_name="page of the benchmark", **UNCACHED, **RETRIED)
def write_page(
    config: RoundConfig, names: list[str], scores: list[Manifest], digests: list[str]
) -> tuple[dict[str, Any], str]:
    """Write the HTML page of a benchmark of the models with these names; return what it shows and its address.

    Raises:
        ConfigError: two models have no scored prompt in common.
    """
    storage = open_storage(config)
    page = page_of(storage, list(zip(names, scores, strict=True)), digests)
    key = f"reports/benchmark-{'-'.join(one.fingerprint[:16] for one in scores)}.html"
    write_html(storage, page, key)
    address = storage.uri(key)
    create_markdown_artifact(markdown_page(page), key="ospo-benchmark", description=address)
    return page, address
