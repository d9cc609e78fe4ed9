"""The tasks around the stages of a round: opening, promotion, report."""

from __future__ import annotations

from typing import Any

from prefect import task

from ospo_core.artifacts.manifest import Manifest
from ospo_core.config import RoundConfig
from ospo_core.rounds.garbage import NIGHTLY
from ospo_core.rounds.plan import report_key
from ospo_core.rounds.records import RoundRecord, open_record
from ospo_core.schema import StageName
from ospo_core.stages.model_pointer import ModelPointer, Promotion, current_model, promote
from ospo_core.stages.model_ref import ModelRef, starting_model, stored_ref
from ospo_core.stages.training import MERGED, MODEL_DIGEST
from tasks.jobs import storage_of
from tasks.prefect_ui import show_decision, show_round, tag_round
from tasks.retries import RETRIED, UNCACHED

Manifests = dict[StageName, Manifest]


@task(task_run_name="open {config.name}", **UNCACHED)
def open_round(config: RoundConfig, start: ModelRef | None = None, alone: bool = False) -> RoundRecord:
    """Check that the storage can be written, find the starting model, and open the round's record.

    So a mistake shows before any work is done.

    Args:
        config: the round's configuration.
        start: the starting model; by default the one that `config.model.path` names.
        alone: an evaluation by itself, and no round.

    Raises:
        StorageError: the storage is unreachable, read-only or full.
        ModelError: the model is missing or not a Janus model.
    """
    storage = storage_of(config)
    storage.check_writable()
    named = starting_model(config, storage)
    record = open_record(storage, config, start or named, "evaluation" if alone else "round")
    tag_round(record, config)
    return record


@task(task_run_name="starting model", **UNCACHED, **RETRIED)
def nightly_start(config: RoundConfig, run: str) -> ModelRef:
    """Return the model that was promoted last when the flow run `run` began, or the configured one if none was.

    It is written down under `nightly/` in the storage, since a retry may come after the run's own promotion.
    """
    storage, key = storage_of(config), f"{NIGHTLY}/{run}.json"
    if storage.exists(key):
        return ModelRef.model_validate_json(storage.read(key))
    pointer = current_model(storage)
    model = starting_model(config, storage) if pointer is None else stored_ref(pointer.digest, pointer.key)
    storage.write(key, model.model_dump_json().encode())
    return model


@task(task_run_name="promotion", **UNCACHED, **RETRIED)
def apply_decision(config: RoundConfig, manifests: Manifests) -> Promotion:
    """Make the child the current model if the gate says so; a refused child stays where it is, explained."""
    decision: dict[str, Any] = manifests[StageName.EVALUATION].extra["decision"]
    if not decision["promote"]:
        outcome = Promotion(changed=False, reason="the gate refused the trained model")
    else:
        training, evaluation = manifests[StageName.TRAINING], manifests[StageName.EVALUATION]
        pointer = ModelPointer(
            digest=training.extra[MODEL_DIGEST],
            key=training.extra[MERGED],
            parent=training.extra["parent_digest"],
            training=training.fingerprint,
            evaluation=evaluation.fingerprint,
        )
        outcome = promote(storage_of(config), pointer)
    show_decision(decision, outcome)
    return outcome


@task(task_run_name="report", **UNCACHED, **RETRIED)
def report(config: RoundConfig, manifests: Manifests, ran: list[StageName]) -> str:
    """Write the round's HTML report, unless nothing was computed and it is there; return its address."""
    from ospo_core.report.html import write_report

    storage, key = storage_of(config), report_key(manifests)
    if ran or not storage.exists(key):
        write_report(storage, manifests, config, key, ran=ran)
    address = storage.uri(key)
    show_round(config, manifests, ran, address)
    return address
