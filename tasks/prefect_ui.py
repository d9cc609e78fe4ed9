"""What the Prefect UI shows of a round: tags, a log line and a page for each stage, pairs, curves, the outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

import httpx
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext

from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.storage_errors import redact
from ospo_core.config import RoundConfig
from ospo_core.report import markdown
from ospo_core.rounds.records import RoundRecord
from ospo_core.schema import StageName
from ospo_core.stages.model_pointer import Promotion
from tasks.jobs import StageJob
from tasks.progress import units_counted
from tasks.run_log import run_logger, tell_the_story

EXAMPLES = 6
"""Pairs shown, one of each sub-category first."""
P = ParamSpec("P")
R = TypeVar("R")


def artifact_key(stage: StageName) -> str:
    """Return the artifact key of a stage: lower case letters and dashes."""
    return f"ospo-{stage.value.replace('_', '-')}"


def told(run: Callable[Concatenate[StageJob, P], R]) -> Callable[Concatenate[StageJob, P], R]:
    """Decorate a function that runs a stage: its shards are counted in a bar.

    Its task runs bear the stage in their names and not as a tag: for every tagged task run Prefect asks the server for
    a concurrency slot of the tag, whether there is a limit or not, and on SQLite that stalls a run for seconds.
    """

    @wraps(run)
    def run_and_tell(job: StageJob, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with units_counted(job.stage, f"{artifact_key(job.stage)}-shards"):
            return run(job, *args, **kwargs)

    return run_and_tell


def tag_round(record: RoundRecord, config: RoundConfig, *more: str) -> None:
    """Tag the flow run, if there is one, with what it runs: configuration, seed and id of the round, and `more`."""
    tag_run("ospo", config.name, f"seed-{config.seed}", f"{record.kind}-{record.id}", *more)


def tag_run(*wanted: str) -> None:
    """Begin the story of the flow run in which this is called, if there is one: add tags, and quieten its log."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    tell_the_story()
    with _untroubled("tags"), get_client(sync_client=True) as client:
        client.update_flow_run(context.flow_run.id, tags=sorted({*context.flow_run.tags, *wanted}))


def show_stage(storage: Storage, manifest: Manifest, seed: int = 0) -> None:
    """Log what a finished stage did, and put its page, and what else there is to see of it, into the UI.

    Args:
        storage: where its results are.
        manifest: of the stage.
        seed: chooses the examples.
    """
    run_logger().info(markdown.stage_sentence(manifest))
    key, page = artifact_key(manifest.stage), markdown.stage_page(storage, manifest)
    with _untroubled(f"stage {manifest.stage}"):
        create_markdown_artifact(page, key=key, description=markdown.stage_sentence(manifest))
        if manifest.drops:
            rows = markdown.kept_rows(manifest)
            create_table_artifact([dict(row) for row in rows], key=f"{key}-drops", description="Kept and dropped")
        if manifest.stage is StageName.PAIRS and manifest.rows:
            pairs = markdown.pairs_page(storage, manifest, seed, EXAMPLES)
            create_markdown_artifact(pairs, key=f"{key}-examples", description="Preference pairs with their pictures")
        if manifest.stage is StageName.TRAINING and manifest.rows:
            curves = markdown.curves_page(storage, manifest)
            create_markdown_artifact(curves, key=f"{key}-curves", description="Training curves")


def show_cached(manifest: Manifest) -> None:
    """Log what a stage did when it was computed."""
    run_logger().info("%s (cached)", markdown.stage_sentence(manifest))


def show_decision(decision: Mapping[str, object], outcome: Promotion) -> None:
    """Log the promotion gate's verdict and put it into the UI."""
    verdict = "promoted" if decision["promote"] else "refused"
    run_logger().info("%s: %s; current model: %s", verdict, decision["reason"], words_of(outcome))
    with _untroubled("decision"):
        page = markdown.decision_page(decision, words_of(outcome))
        create_markdown_artifact(page, key="ospo-decision", description=f"Promotion gate: {verdict}")


def show_round(
    config: RoundConfig, manifests: Mapping[StageName, Manifest], ran: Sequence[StageName], address: str
) -> None:
    """Log where the report is, and put the whole round on one page of the UI."""
    run_logger().info("report: %s", address)
    title, decision = f"{config.name}, seed {config.seed}", manifests[StageName.EVALUATION].extra["decision"]
    verdict = f"{'promoted' if decision['promote'] else 'refused'}: {decision['reason']}"
    page = markdown.round_page(title, manifests, ran, address)
    with _untroubled("round"):
        create_markdown_artifact(page, key="ospo-round", description=f"{verdict}; report: {address}")


def words_of(outcome: Promotion) -> str:
    """Return what became of the current model in words."""
    return f"{'changed' if outcome.changed else 'unchanged'}, {outcome.reason}"


@contextmanager
def _untroubled(what: str) -> Iterator[None]:
    """Let the round go on where the server does not take what is only to be shown."""
    try:
        yield
    except httpx.HTTPError as error:
        run_logger().warning("Not shown in the UI (%s): %s", what, redact(str(error)))
