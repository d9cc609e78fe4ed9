"""What the Prefect UI shows of a round: tags, a log line and a page per stage, pairs, curves, the decision.

Task runs carry their stage in the name, not in a tag: for every tagged task run Prefect asks the server for a
concurrency slot of the tag, whether or not there is a limit, and on SQLite that stalls a run for seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast

import httpx
from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.exceptions import MissingContextError

from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.storage_errors import redact
from ospo_core.config import RoundConfig
from ospo_core.report import formats, markdown
from ospo_core.rounds import Round
from ospo_core.schema import StageName
from ospo_core.stages.model_ref import Promotion

EXAMPLES = 6
"""Number of pairs shown, one of each sub-category first."""


def run_logger() -> logging.Logger:
    """Return the logger of the flow or task run, which the UI shows; outside of any run an ordinary one."""
    try:
        return cast(logging.Logger, get_run_logger())
    except MissingContextError:
        return logging.getLogger("ospo")


def _is_not_completion(record: logging.LogRecord) -> bool:
    return record.getMessage() != "Finished in state Completed()"


def shorten_log() -> None:
    """Drop the lines that a task has completed, which the UI shows anyway and which would hide those of the stages."""
    logging.getLogger("prefect.task_runs").addFilter(_is_not_completion)  # a second time has no effect


def artifact_key(stage: StageName) -> str:
    """Return the artifact key of a stage: lower case letters and dashes."""
    return f"ospo-{stage.value.replace('_', '-')}"


def tag_round(round: Round, *more: str) -> None:
    """Tag the flow run, if there is one, with configuration, seed and id of the round, and with `more`."""
    tag_run("ospo", round.config.name, f"seed-{round.config.seed}", f"{round.kind}-{round.id}", *more)


def tag_run(*wanted: str) -> None:
    """Add tags to the current flow run, if there is one, and shorten its log."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    shorten_log()
    with _optional("tags"), get_client(sync_client=True) as client:
        client.update_flow_run(context.flow_run.id, tags=sorted({*context.flow_run.tags, *wanted}))


def show_stage(storage: Storage, manifest: Manifest, seed: int = 0) -> None:
    """Log what a finished stage did, and put its page, examples (selected by `seed`) and curves into the UI."""
    sentence, key = markdown.stage_sentence(manifest), artifact_key(manifest.stage)
    run_logger().info(sentence)
    page = markdown.stage_page(storage, manifest)
    with _optional(f"stage {manifest.stage}"):
        create_markdown_artifact(page, key=key, description=sentence)
        if manifest.drops:
            rows = markdown.kept_rows(manifest)
            create_table_artifact([dict(row) for row in rows], key=f"{key}-drops", description="Kept and dropped")
        if manifest.stage is StageName.PAIRS and manifest.rows:
            page = markdown.pairs_page(storage, manifest, seed, EXAMPLES)
            create_markdown_artifact(page, key=f"{key}-examples", description="Preference pairs with their pictures")
        if manifest.stage is StageName.TRAINING and manifest.rows:
            page = markdown.curves_page(storage, manifest)
            create_markdown_artifact(page, key=f"{key}-curves", description="Training curves")


def show_cached(manifest: Manifest) -> None:
    """Log what a cached stage did when it was computed."""
    run_logger().info("%s (cached)", markdown.stage_sentence(manifest))


def show_decision(decision: Mapping[str, object], promotion: Promotion) -> None:
    """Log the decision of the promotion gate and put it into the UI."""
    verdict = formats.verdict(decision)
    effect = f"{'changed' if promotion.changed else 'unchanged'}, {promotion.reason}"
    run_logger().info("%s: %s; current model: %s", verdict, decision["reason"], effect)
    with _optional("decision"):
        page = markdown.decision_page(decision, effect)
        create_markdown_artifact(page, key="ospo-decision", description=f"Promotion gate: {verdict}")


def show_round(
    config: RoundConfig, manifests: Mapping[StageName, Manifest], ran: Sequence[StageName], address: str
) -> None:
    """Log the address of the report, and put the whole round on one page of the UI."""
    run_logger().info("report: %s", address)
    title, decision = f"{config.name}, seed {config.seed}", manifests[StageName.EVALUATION].extra["decision"]
    verdict = f"{formats.verdict(decision)}: {decision['reason']}"
    page = markdown.round_page(title, manifests, ran, address)
    with _optional("round"):
        create_markdown_artifact(page, key="ospo-round", description=f"{verdict}; report: {address}")


@contextmanager
def _optional(what: str) -> Iterator[None]:
    """Let the round continue when the server refuses something that is only for display."""
    try:
        yield
    except httpx.HTTPError as error:
        run_logger().warning("Not shown in the UI (%s): %s", what, redact(str(error)))
