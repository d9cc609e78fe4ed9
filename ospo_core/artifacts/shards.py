"""Shards of an unfinished stage: each is published separately, so a killed run resumes at the first missing one.

A shard is two files in the stage's folder: its rows, in a Parquet file named after their content, and its entry,
`part-00000.json`, created last and only once. Two writers of the same shard therefore cannot mix: the second gets the
first one's entry.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from ospo_core.artifacts.checksummed_json import damaged, dump_checksummed, load_checksummed
from ospo_core.artifacts.manifest import ShardEntry, verify_shard
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.storage_errors import MissingObjectError
from ospo_core.artifacts.tables import encode_table, entry_of

_CONTENT_DIGITS = 12


def publish_shard(
    storage: Storage,
    prefix: str,
    shard_name: str,
    tables: pa.Table,
    drops: Mapping[str, int],
    counts: Mapping[str, float],
    seconds: float,
    extra: Mapping[str, Any] | None = None,
    cpu_seconds: float = 0.0,
    gpu_seconds: float = 0.0,
) -> ShardEntry:
    """Publish a shard's rows and then its entry; return the published entry (of two writers, the first one's).

    Args:
        storage: where to.
        prefix: the stage's folder, `prefix_of(stage, fingerprint)`.
        shard_name: `part-00000`.
        tables: the rows.
        drops: items dropped while computing it, by reason.
        counts: other named figures.
        seconds: wall time of computing it.
        extra: further facts to record; JSON.
        cpu_seconds: processor time of computing it.
        gpu_seconds: time of the GPUs it held.

    Raises:
        StorageError: it cannot be written.
    """
    data = encode_table(tables)
    file = f"{shard_name}-{hashlib.sha256(data).hexdigest()[:_CONTENT_DIGITS]}.parquet"
    took = {"seconds": seconds, "cpu_seconds": cpu_seconds, "gpu_seconds": gpu_seconds}
    figures = {"drops": dict(drops), "counts": dict(counts), "extra": dict(extra or {})}
    made = entry_of(shard_name, file, tables, data).model_copy(update={**figures, **took})
    storage.write(f"{prefix}/{file}", data)
    if storage.create(_entry_key(prefix, shard_name), dump_checksummed(made)):
        return made
    there = _read_entry(storage, prefix, shard_name)
    if there.file != file:
        storage.delete(f"{prefix}/{file}")
    return there


def load_shard_entry(storage: Storage, prefix: str, shard_name: str) -> ShardEntry | None:
    """Return the entry of a published shard, after verifying its rows; None if it is not published yet.

    Raises:
        DamagedArtifactError: the entry or the rows are damaged, or the rows are missing; the error names the file.
        StorageError: the storage cannot be read.
    """
    try:
        entry = _read_entry(storage, prefix, shard_name)
    except MissingObjectError:
        return None
    verify_shard(storage, prefix, entry)
    return entry


def _read_entry(storage: Storage, prefix: str, shard_name: str) -> ShardEntry:
    """Return the entry of `shard_name` without reading its rows."""
    key = _entry_key(prefix, shard_name)
    document = load_checksummed(storage.read(key), storage.uri(key))
    try:
        return ShardEntry.model_validate(document)
    except ValidationError as error:
        raise damaged(storage.uri(key), "is not a shard entry of this version") from error


def _entry_key(prefix: str, shard_name: str) -> str:
    """Return the storage key of the entry of `shard_name`."""
    return f"{prefix}/{shard_name}.json"
