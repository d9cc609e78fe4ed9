"""Tables as Parquet shards: the same bytes for the same rows, verified when read, streamed by shard.

Each shard of an unfinished stage is published separately, so a killed run resumes at the first missing one. It is two
files in the stage's folder: its rows, in a Parquet file named after their content, and its entry, `part-00000.json`,
created last and only once. Two writers of the same shard therefore cannot mix: the second gets the first one's entry.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any, cast

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from ospo_core.artifacts.checksummed_json import damaged, dump_checksummed, load_checksummed
from ospo_core.artifacts.manifest import Manifest, ShardEntry, verify_shard
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.storage_errors import MissingObjectError
from ospo_core.errors import StageError
from ospo_core.schema import SCHEMA_VERSION, TABLES

_ROW_GROUP = 4096
_ROWS_AT_ONCE = 64
_FOLDER = "folder"


def write_shard(storage: Storage, key: str, table: pa.Table, **figures: Any) -> ShardEntry:
    """Write `table` as the Parquet file `key` (`<stage>/<fingerprint>/part-00000.parquet`) and return its entry.

    The file's name without suffix becomes the shard's name; `figures` are further fields of the entry, such as `drops`.
    """
    data = encode_table(table)
    storage.write(key, data)
    return entry_of(PurePosixPath(key).stem, PurePosixPath(key).name, table, data, **figures)


def entry_of(name: str, file: str, table: pa.Table, data: bytes, **figures: Any) -> ShardEntry:
    """Return the entry of shard `name`, whose rows are `table` and whose Parquet bytes are `data`."""
    facts = {"table": table_name_of(table.schema), "rows": table.num_rows, "bytes": len(data)}
    return ShardEntry(name=name, file=file, sha256=hashlib.sha256(data).hexdigest(), **facts, **figures)


def table_name_of(schema: pa.Schema) -> str:
    """Return the name of the table in ospo_core.schema.TABLES with these columns, or an empty string."""
    return next((name for name, known in TABLES.items() if known.equals(schema)), "")


def encode_table(table: pa.Table) -> bytes:
    """Return `table` as Parquet (zstd); the same rows give the same bytes, however the table is chunked."""
    metadata = {"ospo.table": table_name_of(table.schema), "ospo.schema_version": str(SCHEMA_VERSION)}
    whole = table.replace_schema_metadata(metadata).combine_chunks()
    sink = pa.BufferOutputStream()
    pq.write_table(whole, sink, compression="zstd", row_group_size=_ROW_GROUP, version="2.6")
    return cast(bytes, sink.getvalue().to_pybytes())


def publish_shard(storage: Storage, prefix: str, shard_name: str, table: pa.Table, **figures: Any) -> ShardEntry:
    """Publish a shard's rows and then its entry; return the published entry (of two writers, the first one's).

    `prefix` is the stage's folder, `figures` are further fields of the entry, such as `drops`.
    """
    data = encode_table(table)
    file = f"{shard_name}-{hashlib.sha256(data).hexdigest()[:12]}.parquet"
    made = entry_of(shard_name, file, table, data, **figures)
    storage.write(f"{prefix}/{file}", data)
    if storage.create(_entry_key(prefix, shard_name), dump_checksummed({**made.model_dump(), _FOLDER: prefix})):
        return made
    there = read_shard_entry(storage, prefix, shard_name)
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
        entry = read_shard_entry(storage, prefix, shard_name)
    except MissingObjectError:
        return None
    verify_shard(storage, prefix, entry)
    return entry


def read_shard(storage: Storage, manifest: Manifest, index: int, columns: Sequence[str] | None = None) -> pa.Table:
    """Return shard number `index` (from 0) of a finished stage, see `read_entry`."""
    return read_entry(storage, manifest.prefix, manifest.shards[index], columns)


def read_entry(storage: Storage, prefix: str, entry: ShardEntry, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the rows of a shard in folder `prefix`, after comparing its digest; `columns=None` reads all columns.

    Raises:
        DamagedArtifactError: the file is missing or its bytes differ from what was published.
        StageError: a column is unknown.
    """
    key = f"{prefix}/{entry.file}"
    try:
        data = storage.read(key)
    except MissingObjectError as error:
        raise damaged(storage.uri(key), "is missing") from error
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise damaged(storage.uri(key), "its bytes are not those that were published")
    try:
        return _decode(data, columns, storage.uri(key))
    except (pa.ArrowException, OSError) as error:  # what pyarrow raises for bytes that are no Parquet
        raise damaged(storage.uri(key), "is not a Parquet file") from error


def read_table(storage: Storage, manifest: Manifest, columns: Sequence[str] | None = None) -> pa.Table:
    """Return all shards of a stage as one table; use `iter_rows` or `select` for tables too large for memory.

    Raises:
        DamagedArtifactError, StageError: as `read_shard`; StageError also if the stage has no shard.
    """
    return pa.concat_tables(_shards(storage, manifest, columns))


def iter_rows(storage: Storage, manifest: Manifest, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a stage in order, with one shard in memory at a time.

    Raises:
        DamagedArtifactError, StageError: as `read_shard`.
    """
    for index in range(len(manifest.shards)):
        for batch in read_shard(storage, manifest, index, columns).to_batches(max_chunksize=_ROWS_AT_ONCE):
            yield from batch.to_pylist()


def select(storage: Storage, manifest: Manifest, columns: Sequence[str], where: pl.Expr | None = None) -> pl.DataFrame:
    """Return some columns of the rows that satisfy `where`; `columns` includes those that it needs.

    One shard is in memory at a time, beside the chosen rows.

    Raises:
        DamagedArtifactError, StageError: as `read_shard`; StageError also if the stage has no shard.
    """
    frames = (_frame(shard) for shard in _shards(storage, manifest, columns))
    return pl.concat([frame if where is None else frame.filter(where) for frame in frames])


def _frame(table: pa.Table) -> pl.DataFrame:
    """Return `table` as a Polars frame."""
    return cast(pl.DataFrame, pl.from_arrow(table))


def _shards(storage: Storage, manifest: Manifest, columns: Sequence[str] | None) -> Iterator[pa.Table]:
    """Yield the shards of a stage that has some."""
    if not manifest.shards:
        raise StageError("has no shards", field=manifest.prefix, remedy="Read a stage that writes a table")
    yield from (read_shard(storage, manifest, index, columns) for index in range(len(manifest.shards)))


def _decode(data: bytes, columns: Sequence[str] | None, name: str) -> pa.Table:
    """Return columns of the Parquet bytes `data`; an error names the file `name`."""
    file = pq.ParquetFile(pa.BufferReader(data))
    unknown = sorted(set(columns or ()) - set(file.schema_arrow.names))
    if unknown:
        raise StageError("unknown columns", field=name, value=unknown, remedy="See ospo_core.schema.TABLES")
    # one thread: a shard is small, or most of it is one column, so waking others takes longer than they save
    return file.read(list(columns) if columns is not None else None, use_threads=False).replace_schema_metadata(None)


def read_shard_entry(storage: Storage, prefix: str, shard_name: str) -> ShardEntry:
    """Return the entry of a published shard without reading its rows.

    Raises:
        MissingObjectError: the shard is not published.
        DamagedArtifactError: the entry is damaged, or belongs to another shard or stage.
    """
    key = _entry_key(prefix, shard_name)
    name = storage.uri(key)
    document = load_checksummed(storage.read(key), name)
    folder = document.pop(_FOLDER, prefix)  # entries of earlier versions do not say it
    try:
        entry = ShardEntry.model_validate(document)
    except ValidationError as error:
        raise damaged(name, "is not a shard entry of this version") from error
    if (folder, entry.name) != (prefix, shard_name):
        raise damaged(name, "belongs to another shard or stage")
    return entry


def _entry_key(prefix: str, shard_name: str) -> str:
    """Return the storage key of the entry of `shard_name`."""
    return f"{prefix}/{shard_name}.json"
