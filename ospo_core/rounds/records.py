"""The records of rounds, `rounds/<id>/round.json`, beside one small file per finished stage.

Results are found by fingerprint and shared between rounds. The records say which results a round consists of, and
therefore which results nothing refers to any more.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationError

from ospo_core.artifacts.checksummed_json import dump_checksummed
from ospo_core.artifacts.storage import Storage
from ospo_core.config import RoundConfig
from ospo_core.config.sections import Section
from ospo_core.errors import ConfigError, DamagedArtifactError
from ospo_core.rounds.round import Round, RoundKind
from ospo_core.schema import StageName
from ospo_core.stages.attempts import ROUNDS, StageRecord, damaged_record, now, read_record_file, stage_record
from ospo_core.stages.model_ref import ModelRef

_LEAST_DIGITS = 4


class RoundRecord(Section):
    """A round, or an evaluation of one model alone (`kind`), as it was first run; `id` is `Round.id`."""

    id: str
    kind: RoundKind
    config: dict[str, Any]
    model: ModelRef
    created_at: str = Field(default_factory=now)


def record_round(round: Round) -> RoundRecord:
    """Return the record of a round, written now unless it exists."""
    config = round.config.model_dump(mode="json")
    record = RoundRecord(id=round.id, kind=round.kind, config=config, model=round.model)
    if round.storage.create(_key(record.id), dump_checksummed(record)):
        return record
    return read_record(round.storage, record.id)


def read_record(storage: Storage, round_id: str) -> RoundRecord:
    """Return the record with this id.

    Raises:
        MissingObjectError: there is none.
        DamagedArtifactError: it is not what was written.
    """
    record = read_record_file(storage, _key(round_id), RoundRecord)
    if record.id != round_id:
        raise damaged_record(storage, _key(round_id), "is that of another round")
    return record


def config_of(record: RoundRecord, **sections: Any) -> RoundConfig:
    """Return the configuration of a recorded round, in which `sections` replace its own.

    Raises:
        DamagedArtifactError: it is none of this version.
    """
    try:
        return RoundConfig.model_validate({**record.config, **sections})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        option = ".".join(str(part) for part in first["loc"])
        raise DamagedArtifactError(
            f"its configuration is none of this version: {option}: {first['msg']}",
            field=_key(record.id),
            remedy=f"Use the version that recorded it, or `ospo gc --forget {record.id}`",
        ) from error


def find_record(storage: Storage, wanted: str) -> RoundRecord:
    """Return the round that an id or its first digits name.

    Raises:
        ConfigError: they name no round of this storage, or several.
    """
    known = round_ids(storage)
    matching = [name for name in known if name.startswith(wanted)]
    if len(matching) != 1 or len(wanted) < _LEAST_DIGITS:
        raise ConfigError(
            "is not the id of one round in this storage",
            field="round",
            value=wanted,
            remedy=f"Give at least {_LEAST_DIGITS} digits of one of: {', '.join(known) or 'none'}",
        )
    return read_record(storage, matching[0])


def round_ids(storage: Storage) -> list[str]:
    """Return the ids of all rounds and evaluations recorded in a storage, sorted."""
    places = (key.split("/") for key in storage.list(ROUNDS))
    return sorted(place[1] for place in places if len(place) == 3 and place[2] == "round.json")


def stage_records(storage: Storage, round_id: str) -> dict[StageName, StageRecord]:
    """Return the results of all finished stages of a round, in the order of the stages."""
    found = {stage: stage_record(storage, round_id, stage) for stage in StageName}
    return {stage: record for stage, record in found.items() if record is not None}


def forget_round(storage: Storage, round_id: str) -> int:
    """Delete a round's record, so that it no longer refers to its results; return the number of files deleted."""
    return storage.delete_folder(f"{ROUNDS}/{round_id}")


def _key(round_id: str) -> str:
    return f"{ROUNDS}/{round_id}/round.json"
