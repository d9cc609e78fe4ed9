"""One stage of a round done over, or some items of it, beside what is published."""

from __future__ import annotations

from prefect import flow

from flows.round import RoundResult, self_improvement_round
from flows.runners import LOCAL
from flows.steps import run_stage
from ospo_core.artifacts.manifest import Manifest
from ospo_core.config import RoundConfig
from ospo_core.config.sections import Section
from ospo_core.schema import StageName
from ospo_core.stages.redo import RedoRequest
from ospo_core.stages.resources import shared_resources
from tasks.backfill_tasks import OpenedRound, find_outdated, find_round, inputs_of
from tasks.jobs import StageJob


class BackfillResult(Section):
    """Outcome of a backfill.

    Args:
        round: id of the round.
        manifest: the stage's result that counts now.
        ran: whether it was computed now.
        outdated: later stages whose results no longer follow from it.
        cascade: outcome of doing those over; None where they were left.
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
    """Compute one stage of a round if it is missing, or do it over; say which later stages are then out of date.

    Nothing published is overwritten: what is done over is a new attempt beside the old one, and the round's record
    names the one that counts.

    Args:
        config: configuration of the round; of another round's, where `round` names one, only storage and execution.
        stage: the stage.
        round: id of a round in the storage, or its first digits; by default the round of `config`.
        where: condition in SQL over the prompts table, e.g. `category = 'layout'`: do only these items over.
        refresh: do all of it over although it is there; a condition or overrides imply it.
        cascade: do later stages that are out of date over too.
        overrides: `section.option=value` that hold for this stage only.

    Raises:
        OspoError: there is no such round, its earlier stages are not done, or the request does not fit the stage.
    """
    opened = find_round(config, round)
    before = inputs_of(opened, stage, where)
    job = StageJob(
        config=opened.config, stage=stage, model=opened.record.model, upstream=before, round=opened.record.id
    )
    over = refresh or bool(where) or bool(overrides)
    request = RedoRequest(where=where, overrides=tuple(overrides or ())) if over else None
    try:
        manifest, ran = run_stage(job, request)
    finally:
        shared_resources().give_back()
    late = tuple(one.stage for one in find_outdated(opened) if one.standing == "out of date")
    done = BackfillResult(round=opened.record.id, manifest=manifest, ran=ran, outdated=late)
    return _cascade(opened, done) if cascade and late else done


def _cascade(opened: OpenedRound, done: BackfillResult) -> BackfillResult:
    """Do over what is out of date."""
    redone = self_improvement_round(opened.config, until=done.outdated[-1], start=opened.record.model)
    return done.model_copy(update={"outdated": (), "cascade": redone})
