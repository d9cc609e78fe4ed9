"""Attempts at a stage: recomputing it, or some of its items, while the published result is kept.

Which attempt counts in a round is recorded in `rounds/<id>/<stage>.json`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from pydantic import AliasChoices, Field, ValidationError

from ospo_core.artifacts.checksummed_json import dump_checksummed, load_checksummed
from ospo_core.artifacts.ids import Digest
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.storage_errors import MissingObjectError
from ospo_core.config.sections import Section
from ospo_core.errors import DamagedArtifactError
from ospo_core.schema import StageName

ROUNDS = "rounds"
"""Folder of the storage that holds the records of rounds."""

_Record = TypeVar("_Record", bound=Section)


def now() -> str:
    """Return the time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Attempt(Section):
    """One attempt at recomputing a stage.

    Args:
        where: SQL condition on the columns of the prompts table, e.g. `category = 'layout'`; empty means all items.
        overrides: `section.option=value`, valid for this attempt only.
        number: 1 for the first attempt after the ordinary result; 0 while the attempt is only requested.
        of: with `where`, fingerprint of the result from which the other rows are kept.
    """

    where: str = ""
    overrides: tuple[str, ...] = ()
    number: int = Field(0, ge=0, validation_alias=AliasChoices("number", "attempt"))
    of: Digest | Literal[""] = ""

    def ingredients(self) -> dict[str, Any]:
        """Return what enters the fingerprint, so that no attempt overwrites another result."""
        return {"where": self.where, "overrides": list(self.overrides), "attempt": self.number, "of": self.of}


class StageRecord(Section):
    """The result of one stage that counts in a round.

    Args:
        stage: which stage.
        fingerprint: of the result that counts.
        base: fingerprint of the ordinary result; equal to `fingerprint` unless an attempt counts.
        attempt: the attempt that counts; None for the ordinary result.
        at: when this was written.
    """

    stage: StageName
    fingerprint: Digest
    base: Digest
    attempt: Attempt | None = Field(None, validation_alias=AliasChoices("attempt", "redo"))
    at: str = Field(default_factory=now)


def record_stage(storage: Storage, round_id: str, record: StageRecord) -> None:
    """Make `record` the result of its stage in a round; if it already is, nothing is written."""
    existing = stage_record(storage, round_id, record.stage)
    if existing is None or existing.model_copy(update={"at": record.at}) != record:
        storage.write(_key(round_id, record.stage), dump_checksummed(record))


def stage_record(storage: Storage, round_id: str, stage: StageName) -> StageRecord | None:
    """Return which result of a stage counts in a round, or None if there is none yet.

    Raises:
        DamagedArtifactError: the record is not what was written.
    """
    try:
        record = read_record_file(storage, _key(round_id, stage), StageRecord)
    except MissingObjectError:
        return None
    if record.stage is not stage:
        raise damaged_record(storage, _key(round_id, stage), "is that of another stage")
    return record


def read_record_file(
    storage: Storage, key: str, kind: type[_Record], writer: str = "run of the round", checksum_required: bool = True
) -> _Record:
    """Return a record that was written with a checksum.

    Args:
        storage: where it is.
        key: its place.
        kind: its class.
        writer: what writes it again once it is deleted, for the error.
        checksum_required: False accepts a record without one, as earlier versions wrote it.

    Raises:
        MissingObjectError: there is none.
        DamagedArtifactError: it is not what was written.
    """
    try:
        return kind.model_validate(load_checksummed(storage.read(key), storage.uri(key), checksum_required))
    except (DamagedArtifactError, ValidationError) as error:
        raise damaged_record(storage, key, "is damaged", writer) from error


def damaged_record(storage: Storage, key: str, problem: str, writer: str = "run of the round") -> DamagedArtifactError:
    """Return the error for a record that is not what was written."""
    remedy = f"Delete this file; the next {writer} writes it again"
    return DamagedArtifactError(f"the record {problem}", field=storage.uri(key), remedy=remedy)


def _key(round_id: str, stage: StageName) -> str:
    return f"{ROUNDS}/{round_id}/{stage.value}.json"
