"""The tasks around the stages of a round: opening it, promotion, the report, and what only a backfill needs."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import create_markdown_artifact

from ospo_core.artifacts.manifest import Manifest
from ospo_core.config import RoundConfig
from ospo_core.errors import ConfigError, OspoError, StageError
from ospo_core.evaluation.people_gate import awaits_people
from ospo_core.rounds import Round, plan
from ospo_core.rounds.garbage import NIGHTLY
from ospo_core.rounds.plan import count_chosen, manifests_before, report_key, standings
from ospo_core.rounds.preflight import preflight
from ospo_core.rounds.records import config_of, find_record, record_round
from ospo_core.rounds.round import RoundKind
from ospo_core.schema import StageName
from ospo_core.stages.imported_pairs import find_imported
from ospo_core.stages.model_ref import (
    ModelRef,
    Promotion,
    current_model,
    fetch_roles,
    note_model,
    noted_model,
    starting_model,
    stored_ref,
)
from tasks.credentials import open_storage
from tasks.prefect_ui import run_logger, show_decision, show_round, tag_round
from tasks.task_options import RETRIED, UNCACHED

Manifests = dict[StageName, Manifest]


@task(task_run_name="open {config.name}", **UNCACHED)
def open_round(config: RoundConfig, start: ModelRef | None = None, kind: RoundKind = "round") -> Round:
    """Check that the storage can be written, find the starting model, and record the round.

    The starting model is `start`, by default the one that `config.model.path` names. Mistakes show up before any work.

    Raises:
        StorageError: the storage is unreachable, read-only or full.
        ModelError: the model is missing or not a model of a known family.
        ConfigError: the pairs that were imported for its training are not there, or do not fit the model; or the
            benchmark that is its gate has no prompts, or no fair judge.
    """
    storage = open_storage(config)
    storage.check_writable()
    if start is not None:
        fetch_roles(config)
    round = Round(config, storage, start or starting_model(config, storage), kind)
    if kind == "round":
        find_imported(config.training, storage, round.model.digest)
    record = record_round(round)
    tag_round(round)
    return Round(config, storage, record.model, kind)


@task(task_run_name="pre-flight check", **UNCACHED)
def check_first(round: Round) -> None:
    """Try everything once that a round does; what fails here would have failed after hours of work.

    Raises:
        OspoError: the first check that failed.
    """
    for found in preflight(round):
        run_logger().info("%s (%.1f s): %s", found.check, found.seconds, found.detail)
        if isinstance(found.error, OspoError):
            raise found.error
        if found.error is not None:
            raise StageError(
                found.detail, field=f"pre-flight check: {found.check}", remedy="`ospo doctor` shows all checks"
            ) from found.error


@task(task_run_name="find the round", **UNCACHED, **RETRIED)
def find_round(config: RoundConfig, wanted: str | None) -> Round:
    """Return the round whose id begins with `wanted`, with the storage and execution of `config`.

    Without `wanted` it is the round of `config`.

    Raises:
        ConfigError: there is no such round.
        ModelError: the model that `config.model.path` names is missing.
    """
    storage = open_storage(config)
    storage.check_writable()
    if wanted is None:
        round = Round(config, storage, starting_model(config, storage))
        record_round(round)
    else:
        record = find_record(storage, wanted)
        if record.kind != "round":
            raise ConfigError(
                "is an evaluation of one model, which has no stages", field="round", value=wanted, remedy="Name a round"
            )
        here = {name: getattr(config, name).model_dump(mode="json") for name in ("storage", "execution")}
        found = config_of(record, **here)
        round = Round(found, storage, record.model, recorded_id=record.id)
    tag_round(round, "backfill")
    return round


@task(task_run_name="inputs of {stage}", **UNCACHED, **RETRIED)
def inputs_of(round: Round, stage: StageName, where: str) -> Manifests:
    """Return the manifests of the stages before `stage`, having checked that some prompt satisfies `where`.

    Raises:
        StageError: an earlier stage is not done, or no prompt satisfies the condition.
        ConfigError: the condition cannot be used.
    """
    before = manifests_before(round, stage)
    if where and StageName.PROMPTS in before:
        count_chosen(round, before[StageName.PROMPTS], where)
    return before


@task(task_run_name="what is out of date", **UNCACHED, **RETRIED)
def find_outdated(round: Round) -> list[StageName]:
    """Return the stages of the round that are out of date, and show the standing of all stages in the UI."""
    found = standings(round)
    lines = [f"# Round {round.id}", "", "| stage | after the backfill |", "| --- | --- |"]
    lines += [f"| {name} | {standing} |" for name, standing in found.items()]
    create_markdown_artifact("\n".join(lines), key="ospo-backfill", description="Backfill")
    return [name for name, standing in found.items() if standing == "out of date"]


@task(task_run_name="starting model", **UNCACHED, **RETRIED)
def nightly_start(config: RoundConfig, flow_run: str) -> ModelRef:
    """Return the model that was last promoted when `flow_run` began, or the configured one if none was.

    It is recorded under `nightly/` in the storage, since a retry may follow the run's own promotion.
    """
    storage, key = open_storage(config), f"{NIGHTLY}/{flow_run}.json"
    if (noted := noted_model(storage, key)) is not None:
        return noted
    pointer = current_model(storage)
    model = starting_model(config, storage) if pointer is None else stored_ref(pointer.digest, pointer.key)
    note_model(storage, key, model)
    return model


@task(task_run_name="answers of people", **UNCACHED, **RETRIED)
def count_answers(config: RoundConfig, manifests: Manifests) -> Manifests:
    """Return the manifests with the decision that the answers of people give now, if they decide."""
    return plan.with_answers(open_storage(config), manifests, config.promotion.people_prompts)


@task(task_run_name="promotion", **UNCACHED, **RETRIED)
def apply_decision(config: RoundConfig, manifests: Manifests) -> Promotion:
    """Make the child the current model if the gate decided so, and show the decision in the UI."""
    promotion = plan.apply_decision(open_storage(config), manifests)
    show_decision(manifests[StageName.EVALUATION].extra["decision"], promotion)
    return promotion


@task(task_run_name="report", **UNCACHED, **RETRIED)
def report(config: RoundConfig, manifests: Manifests, ran: list[StageName]) -> str:
    """Write the round's HTML report and return its address.

    One that exists stays if nothing was computed, unless people decide, who may have answered since.
    """
    storage, key = open_storage(config), report_key(manifests)
    if ran or not storage.exists(key) or awaits_people(manifests[StageName.EVALUATION]):
        from ospo_core.report.html import write_report

        write_report(storage, manifests, config, key, ran=ran)
    address = storage.uri(key)
    show_round(config, manifests, ran, address)
    return address
