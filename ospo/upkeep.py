"""What `ospo rounds`, `ospo backfill` and `ospo gc` do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ospo import output
from ospo.actions import embedded_prefect, storage_of
from ospo_core.config import RoundConfig, load_profile
from ospo_core.rounds import Round
from ospo_core.rounds.garbage import find_garbage, remove
from ospo_core.rounds.plan import standings
from ospo_core.rounds.records import find_record, forget_round, read_record, round_ids
from ospo_core.schema import StageName
from ospo_core.stages.model_ref import current_model
from ospo_core.stages.partial import KEPT_ROWS


@dataclass(frozen=True)
class Backfill:
    """What is to be done over; see `flows.backfill.backfill`."""

    stage: StageName
    round: str | None
    where: str
    refresh: bool
    cascade: bool
    changes: Sequence[str]


def show_rounds(profile: str, overrides: Sequence[str]) -> None:
    """List the rounds of a storage, oldest first, with the stages that are done and those that are out of date."""
    storage = storage_of(load_profile(profile, overrides))
    records = [read_record(storage, identity) for identity in round_ids(storage)]
    listed = []
    for record in sorted(records, key=lambda one: one.created_at):
        config = RoundConfig.model_validate(record.config)
        round = Round(config, storage, record.model, record.kind, recorded_id=record.id)
        found = standings(round) if record.kind == "round" else []
        listed.append((record, config, found))
    output.show_rounds(storage.uri(), current_model(storage), listed)


def run_backfill(profile: str, overrides: Sequence[str], wanted: Backfill, verbose: bool) -> None:
    """Run a backfill, show the stage's figures and what is out of date."""
    config = load_profile(profile, overrides)
    with embedded_prefect(config, verbose):
        from flows.backfill import backfill

        result = backfill(
            config,
            wanted.stage,
            round=wanted.round,
            where=wanted.where,
            refresh=wanted.refresh,
            cascade=wanted.cascade,
            overrides=list(wanted.changes),
        )
    output.show_round({wanted.stage: result.manifest}, [wanted.stage] if result.ran else [], None, "")
    kept = result.manifest.counts.get(KEPT_ROWS)
    if result.ran and kept is not None:
        output.show_text(f"{result.manifest.rows - kept:.0f} rows done over, {kept:.0f} kept.")
    if result.cascade is not None:
        redone = result.cascade
        output.show_round(redone.manifests, redone.ran, redone.promotion, redone.report)
    output.show_outdated(result.round, result.outdated)


def collect_garbage(
    profile: str, overrides: Sequence[str], forget: Sequence[str], keep_hours: float, delete: bool
) -> None:
    """Show what no round refers to, or delete it; forgetting a round, too, is only done with `delete`."""
    storage = storage_of(load_profile(profile, overrides))
    forgotten = [find_record(storage, wanted).id for wanted in forget]
    found = find_garbage(storage, keep_hours, forgotten)
    output.show_garbage(found, forgotten, delete)
    if delete:
        for identity in forgotten:
            forget_round(storage, identity)
        remove(storage, found)
