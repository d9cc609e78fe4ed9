"""Which results belong to which round: `rounds/<id>/round.json`, and one small file for each stage that is done.

Results are shared between rounds and found by fingerprint; the records say what a round consists of now, which attempt
counts where a stage was done over, and so what nobody refers to any more.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import Field, ValidationError

from ospo_core.artifacts.checksummed_json import dump_checksummed, load_checksummed
from ospo_core.artifacts.ids import digest_of
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.storage_errors import MissingObjectError
from ospo_core.config import RoundConfig
from ospo_core.config.sections import Section
from ospo_core.errors import ConfigError, DamagedArtifactError
from ospo_core.schema import StageName
from ospo_core.stages import MODEL_EVALUATION, STAGES
from ospo_core.stages.model_ref import ModelRef
from ospo_core.stages.redo import Redo

FOLDER = "rounds"
_LEAST_DIGITS = 4
_ID_DIGITS = 12


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class RoundRecord(Section):
    """One round, or one evaluation of a model by itself.

    Args:
        id: twelve hex digits; the same for the same configuration and model.
        kind: which of the two.
        config: its configuration as it was first run.
        model: the model that it started from.
        created_at: when it was first run.
    """

    id: str
    kind: Literal["round", "evaluation"]
    config: dict[str, Any]
    model: ModelRef
    created_at: str = Field(default_factory=_now)


class StageRecord(Section):
    """The result of one stage that counts in a round.

    Args:
        stage: which stage.
        fingerprint: of the result that counts.
        base: of the ordinary result; another one where the stage was done over.
        redo: how it was done over.
        at: when this was written.
    """

    stage: StageName
    fingerprint: str
    base: str
    redo: Redo | None = None
    at: str = Field(default_factory=_now)


def round_id(config: RoundConfig, model: ModelRef, kind: Literal["round", "evaluation"] = "round") -> str:
    """Return the id of a round: a digest of all that changes its results, so not of folders, devices or batch sizes."""
    stages = [MODEL_EVALUATION] if kind == "evaluation" else list(STAGES.values())
    fields = [[stage.name, stage.fields(config)] for stage in stages]
    parts = [kind, fields, model.digest, config.model.family, config.model.dtype]
    return digest_of(parts)[:_ID_DIGITS]


def open_record(
    storage: Storage, config: RoundConfig, model: ModelRef, kind: Literal["round", "evaluation"] = "round"
) -> RoundRecord:
    """Return the record of a round, made now if it is not there."""
    record = RoundRecord(
        id=round_id(config, model, kind), kind=kind, config=config.model_dump(mode="json"), model=model
    )
    if storage.create(_round_key(record.id), dump_checksummed(record)):
        return record
    return read_record(storage, record.id)


def read_record(storage: Storage, identity: str) -> RoundRecord:
    """Return the record with this id.

    Raises:
        DamagedArtifactError: it is not what was written.
    """
    key = _round_key(identity)
    return RoundRecord.model_validate(_unsealed(storage, key, RoundRecord))


def find_record(storage: Storage, wanted: str) -> RoundRecord:
    """Return the round that an id or its first digits name.

    Raises:
        ConfigError: no round of this storage, or more than one, is called so.
    """
    known = round_ids(storage)
    fitting = [name for name in known if name.startswith(wanted)]
    if len(fitting) != 1 or len(wanted) < _LEAST_DIGITS:
        raise ConfigError(
            "is not the id of one round in this storage",
            field="round",
            value=wanted,
            remedy=f"Give at least {_LEAST_DIGITS} digits of one of: {', '.join(known) or 'none'}",
        )
    return read_record(storage, fitting[0])


def round_ids(storage: Storage) -> list[str]:
    """Return the ids of all rounds and evaluations recorded in a storage, sorted."""
    return sorted({key.split("/")[1] for key in storage.list(FOLDER) if key.endswith("/round.json")})


def record_stage(storage: Storage, identity: str, record: StageRecord) -> None:
    """Make `record` the result of its stage in a round; nothing is written where that is so already."""
    there = stage_record(storage, identity, record.stage)
    if there is None or there.model_copy(update={"at": record.at}) != record:
        storage.write(_stage_key(identity, record.stage), dump_checksummed(record))


def stage_record(storage: Storage, identity: str, stage: StageName) -> StageRecord | None:
    """Return which result of a stage counts in a round; None where it was not done yet.

    Raises:
        DamagedArtifactError: the record is not what was written.
    """
    try:
        return StageRecord.model_validate(_unsealed(storage, _stage_key(identity, stage), StageRecord))
    except MissingObjectError:
        return None


def stage_records(storage: Storage, identity: str) -> dict[StageName, StageRecord]:
    """Return the results of all stages that are done in a round, in the order of the stages."""
    found = {stage: stage_record(storage, identity, stage) for stage in StageName}
    return {stage: record for stage, record in found.items() if record is not None}


def forget_round(storage: Storage, identity: str) -> int:
    """Delete a round's record, so that its results are no longer referred to; return the files deleted."""
    return storage.delete_folder(f"{FOLDER}/{identity}")


def _unsealed(storage: Storage, key: str, kind: type[Section]) -> dict[str, Any]:
    try:
        document = load_checksummed(storage.read(key), storage.uri(key))
        kind.model_validate(document)
    except (DamagedArtifactError, ValidationError) as error:
        remedy = "Delete this file; the next run of the round writes it again"
        raise DamagedArtifactError("the record is damaged", field=storage.uri(key), remedy=remedy) from error
    return document


def _round_key(identity: str) -> str:
    return f"{FOLDER}/{identity}/round.json"


def _stage_key(identity: str, stage: StageName) -> str:
    return f"{FOLDER}/{identity}/{stage.value}.json"
