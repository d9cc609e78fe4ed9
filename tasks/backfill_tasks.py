"""The tasks around a backfill: which round, what lies before the stage, and what is out of date afterwards."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import create_markdown_artifact

from ospo_core.artifacts.manifest import Manifest
from ospo_core.config import RoundConfig
from ospo_core.config.sections import Section
from ospo_core.errors import ConfigError
from ospo_core.rounds.records import RoundRecord, find_record, open_record
from ospo_core.rounds.staleness import StageStanding, count_chosen, manifests_before, standings
from ospo_core.schema import StageName
from ospo_core.stages import StageContext
from ospo_core.stages.model_ref import starting_model
from ospo_core.stages.resources import shared_resources
from tasks.jobs import storage_of
from tasks.prefect_ui import tag_round
from tasks.retries import RETRIED, UNCACHED

_OF_THE_CALL = ("storage", "execution")


class OpenedRound(Section):
    """A round that exists: its record, and its configuration with the caller's storage and way of running."""

    record: RoundRecord
    config: RoundConfig


@task(task_run_name="find the round", **UNCACHED, **RETRIED)
def find_round(config: RoundConfig, wanted: str | None) -> OpenedRound:
    """Return the round with the id `wanted`; without one, the round of `config`.

    Raises:
        ConfigError: there is no such round.
        ModelError: the model that `config.model.path` names is missing.
    """
    storage = storage_of(config)
    storage.check_writable()
    if wanted is None:
        record = open_record(storage, config, starting_model(config, storage))
        tag_round(record, config, "backfill")
        return OpenedRound(record=record, config=config)
    record = find_record(storage, wanted)
    if record.kind != "round":
        raise ConfigError(
            "is an evaluation by itself, which has no stages", field="round", value=wanted, remedy="Name a round"
        )
    here = {name: getattr(config, name).model_dump(mode="json") for name in _OF_THE_CALL}
    found = RoundConfig.model_validate({**record.config, **here})
    tag_round(record, found, "backfill")
    return OpenedRound(record=record, config=found)


@task(task_run_name="inputs of {stage}", **UNCACHED, **RETRIED)
def inputs_of(opened: OpenedRound, stage: StageName, where: str) -> dict[StageName, Manifest]:
    """Return the manifests of the stages before `stage`, having checked that some prompt satisfies `where`.

    Raises:
        StageError: a stage before is not done, or no prompt satisfies the condition.
        ConfigError: the condition cannot be used.
    """
    storage = storage_of(opened.config)
    before = manifests_before(opened.config, storage, opened.record, stage)
    if where and StageName.PROMPTS in before:
        count_chosen(StageContext(opened.config, storage, opened.record.model, before, shared_resources()), where)
    return before


@task(task_run_name="what is out of date", **UNCACHED, **RETRIED)
def find_outdated(opened: OpenedRound) -> list[StageStanding]:
    """Return how every stage of the round stands now, and show it in the UI."""
    found = standings(opened.config, storage_of(opened.config), opened.record)
    create_markdown_artifact(standings_markdown(opened.record.id, found), key="ospo-backfill", description="Backfill")
    return found


def standings_markdown(identity: str, found: list[StageStanding]) -> str:
    """Return how the stages of a round stand as Markdown."""
    lines = [f"# Round {identity}", "", "| stage | after the backfill |", "| --- | --- |"]
    return "\n".join([*lines, *(f"| {one.stage} | {one.standing} |" for one in found)])
