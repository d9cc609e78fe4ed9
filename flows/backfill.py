"""Backfill: compute or recompute one stage of a round, or some of its items, and keep the published result."""

from __future__ import annotations

from prefect import flow

from flows.round import RoundResult, self_improvement_round
from flows.steps import LOCAL, run_step
from ospo_core.artifacts.manifest import Manifest
from ospo_core.config import RoundConfig
from ospo_core.config.sections import Section
from ospo_core.schema import StageName
from ospo_core.stages.attempts import Attempt
from tasks.round_tasks import find_outdated, find_round, inputs_of
from tasks.task_options import opaque


class BackfillResult(Section):
    """Result of a backfill.

    Args:
        round: id of the round.
        manifest: the result of the stage that counts now.
        ran: whether it was computed now.
        outdated: later stages whose results no longer follow from it.
        cascade: result of recomputing those; None if they were not recomputed.
    """

    round: str
    manifest: Manifest
    ran: bool
    outdated: tuple[StageName, ...] = ()
    cascade: RoundResult | None = None


@flow(flow_run_name="backfill {stage}, {config.name}", task_runner=LOCAL, persist_result=False)
def backfill(
    config: RoundConfig,
    stage: StageName,
    round: str | None = None,
    where: str = "",
    refresh: bool = False,
    cascade: bool = False,
    overrides: list[str] | None = None,
) -> BackfillResult:
    """Compute one stage of a round if it is missing, or recompute it; return which later stages are then out of date.

    Published results are kept: a recomputation is a new attempt beside them, and the round's record names the one that
    counts.

    Args:
        config: configuration of the round; if `round` names another one, only storage and execution are used.
        stage: the stage.
        round: id of a round in the storage, or its first digits; by default the round of `config`.
        where: SQL condition on the prompts table, e.g. `category = 'layout'`: recompute only these items.
        refresh: recompute all items although there is a result; implied by a condition or overrides.
        cascade: also recompute later stages that are out of date.
        overrides: `section.option=value`, valid for this stage only.

    Raises:
        OspoError: there is no such round, an earlier stage is not done, or the stage does not support the request.
    """
    found = find_round(config, round)
    before = inputs_of(opaque(found), stage, where)
    request = Attempt(where=where, overrides=tuple(overrides or ())) if refresh or where or overrides else None
    try:
        manifest, ran = run_step(found, stage, before, request)
    finally:
        found.resources.release()
    late = tuple(find_outdated(opaque(found)))
    redone = self_improvement_round(found.config, until=late[-1], start=found.model) if cascade and late else None
    outdated = late if redone is None else ()
    return BackfillResult(round=found.id, manifest=manifest, ran=ran, outdated=outdated, cascade=redone)
