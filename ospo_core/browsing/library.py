"""What a storage holds: its rounds, the results that count in them, and manifests by fingerprint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ospo_core.artifacts.manifest import Manifest, load_manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.storage_errors import MissingObjectError
from ospo_core.errors import DamagedArtifactError
from ospo_core.rounds.plan import report_key, with_answers
from ospo_core.rounds.records import RoundRecord, read_record, round_ids, stage_records
from ospo_core.schema import StageName
from ospo_core.stages.model_ref import current_model

_ROUND_ID, _FINGERPRINT = re.compile(r"[0-9a-f]{12}"), re.compile(r"[0-9a-f]{64}")
_MANIFESTS_KEPT = 64


@dataclass(frozen=True)
class RoundLine:
    """One round in the list of rounds.

    Attributes:
        id: of the round.
        record: as it was first run; None if its file is damaged.
        stages: the finished ones, in order.
        decision: of the promotion gate; None before the evaluation.
        starts_current: whether it starts from the model promoted last.
        problem: what is damaged, in words; empty if nothing is.
    """

    id: str
    record: RoundRecord | None = None
    stages: tuple[StageName, ...] = ()
    decision: Mapping[str, Any] | None = None
    starts_current: bool = False
    problem: str = ""


@dataclass(frozen=True)
class Library:
    """A storage as people look at it. Manifests never change, so the last ones read are kept."""

    storage: Storage
    _known: dict[tuple[StageName, str], Manifest] = field(default_factory=dict)

    def rounds(self) -> list[RoundLine]:
        """Return all rounds and evaluations, the newest first; a damaged one is listed with its problem."""
        pointer = current_model(self.storage)
        lines = [self._line(identity, pointer.digest if pointer is not None else "") for identity in self._ids()]
        return sorted(lines, key=lambda one: (one.record.created_at if one.record else "", one.id), reverse=True)

    def record(self, round_id: str) -> RoundRecord:
        """Return the record of a round.

        Raises:
            MissingObjectError: there is no round with this id.
            DamagedArtifactError: its record is not what was written.
        """
        if not _ROUND_ID.fullmatch(round_id) or round_id not in self._ids():
            raise missing("round", round_id, "Choose one of the list of rounds")
        return read_record(self.storage, round_id)

    def manifests(self, round_id: str) -> dict[StageName, Manifest]:
        """Return the results that count in a round and are still there, in the order of the stages.

        Raises:
            MissingObjectError: there is no round with this id.
            DamagedArtifactError: a record or manifest is damaged.
        """
        self.record(round_id)
        return self._counting(round_id)

    def stage(self, round_id: str, stage: StageName) -> Manifest:
        """Return the result of one stage that counts in a round; raise MissingObjectError if there is none."""
        found = self.manifests(round_id).get(stage)
        if found is None:
            raise missing(f"stage {stage}", round_id, f"Run `ospo stage {stage}` with the options of this round first")
        return found

    def manifest(self, stage: StageName, fingerprint: str) -> Manifest:
        """Return a finished result.

        Raises:
            MissingObjectError: there is none with this fingerprint.
            DamagedArtifactError: its manifest is not what was written.
        """
        found = self._manifest(stage, fingerprint) if _FINGERPRINT.fullmatch(fingerprint) else None
        if found is None:
            raise missing(f"stage {stage}", fingerprint, "Choose a result from the page of its round")
        return found

    def round_of(self, evaluation: str) -> str:
        """Return the id of the newest round in which this evaluation counts; empty if there is none."""
        for line in self.rounds():
            result = self._counting(line.id).get(StageName.EVALUATION) if line.record is not None else None
            if result is not None and result.fingerprint == evaluation:
                return line.id
        return ""

    def report(self, round_id: str) -> bytes:
        """Return the report of a round, HTML as it was written; raise MissingObjectError if there is none."""
        manifests = self.manifests(round_id)
        if not manifests or not self.storage.exists(report_key(manifests)):
            raise missing("report", round_id, "Run `ospo report` with the options of this round")
        return self.storage.read(report_key(manifests))

    def has_report(self, manifests: Mapping[StageName, Manifest]) -> bool:
        """Return whether the report of these results was written."""
        return bool(manifests) and self.storage.exists(report_key(manifests))

    def _ids(self) -> list[str]:
        return round_ids(self.storage)

    def _line(self, round_id: str, current: str) -> RoundLine:
        try:
            record, manifests = read_record(self.storage, round_id), self._counting(round_id)
        except DamagedArtifactError as error:
            return RoundLine(round_id, problem=str(error))
        evaluation = manifests.get(StageName.EVALUATION)
        decision = evaluation.extra.get("decision") if evaluation is not None else None
        return RoundLine(round_id, record, tuple(manifests), decision, record.model.digest == current)

    def _counting(self, round_id: str) -> dict[StageName, Manifest]:
        records = stage_records(self.storage, round_id)
        found = {stage: self._manifest(stage, record.fingerprint) for stage, record in records.items()}
        published = {stage: manifest for stage, manifest in found.items() if manifest is not None}
        return with_answers(self.storage, published)

    def _manifest(self, stage: StageName, fingerprint: str) -> Manifest | None:
        key = (stage, fingerprint)
        if key not in self._known:
            manifest = load_manifest(self.storage, stage, fingerprint, verify=False)
            if manifest is None:
                return None
            while len(self._known) >= _MANIFESTS_KEPT:
                self._known.pop(next(iter(self._known)), None)
            self._known[key] = manifest
        return self._known[key]


def missing(what: str, value: str, remedy: str) -> MissingObjectError:
    """Return the error for something that is not in the storage."""
    return MissingObjectError("is not in this storage", field=what, value=value, remedy=remedy)
