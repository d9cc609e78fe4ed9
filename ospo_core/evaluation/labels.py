"""People's answers in the storage: one small Parquet file an answer, created once, so that nobody overwrites another.

The folder is `labels/<fingerprint of the evaluation>/`; names begin with the time, and end with the digest of the file.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from ospo_core.artifacts.checksummed_json import damaged
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.tables import encode_table
from ospo_core.errors import StorageError
from ospo_core.evaluation.people import Label
from ospo_core.schema import TABLES, table_from_rows

LABELS = "labels"
"""Folder of the storage that holds people's answers, and name of their table."""

_DIGITS = 12


def store_label(storage: Storage, fields: Mapping[str, Any]) -> Label:
    """Store one answer, with an id and the time of now, and return it; `fields` are the other fields of `Label`.

    Raises:
        StorageError: it cannot be written; nothing is stored then.
    """
    now = datetime.now(UTC)
    label = Label.model_validate({**fields, "label_id": uuid.uuid4().hex, "at": now.isoformat(timespec="microseconds")})
    data = encode_table(table_from_rows(LABELS, [label.model_dump()]))
    name = f"{now.strftime('%Y%m%dT%H%M%S.%f')}-{hashlib.sha256(data).hexdigest()[:_DIGITS]}.parquet"
    if not storage.create(f"{LABELS}/{label.evaluation}/{name}", data):
        raise StorageError("an answer with this name exists", field=LABELS, value=name, remedy="Answer once more")
    return label


class LabelReader:
    """Reads the answers of evaluations; files never change, so each is read once."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._known: dict[str, Label] = {}

    def of(self, evaluation: str) -> list[Label]:
        """Return all answers about the pictures of an evaluation, the oldest first.

        Raises:
            DamagedArtifactError: an answer is not what was written; the file is named.
        """
        keys = [key for key in self._storage.list(f"{LABELS}/{evaluation}") if key.endswith(".parquet")]
        for key in keys:
            if key not in self._known:
                self._known[key] = _read(self._storage, key)
        return [self._known[key] for key in sorted(keys)]

    def evaluations(self) -> list[str]:
        """Return the fingerprints of the evaluations about which people have answered."""
        return sorted({key.split("/")[1] for key in self._storage.list(LABELS) if key.count("/") == 2})


def _read(storage: Storage, key: str) -> Label:
    data = storage.read(key)
    if hashlib.sha256(data).hexdigest()[:_DIGITS] != key.removesuffix(".parquet").rpartition("-")[2]:
        raise damaged(storage.uri(key), "its bytes are not those that were written")
    try:
        table = pq.read_table(pa.BufferReader(data)).replace_schema_metadata(None)
        (row,) = table.cast(TABLES[LABELS]).to_pylist()
        label = Label.model_validate(row)
    except (pa.ArrowException, ValidationError, ValueError) as error:
        raise damaged(storage.uri(key), "is not an answer of this version") from error
    if label.evaluation != key.split("/")[1]:
        raise damaged(storage.uri(key), "belongs to another evaluation")
    return label
