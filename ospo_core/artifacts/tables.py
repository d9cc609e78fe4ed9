"""Tables as Parquet shards: the same bytes for the same rows, verified when read, streamed by shard."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, cast

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ospo_core.artifacts.checksummed_json import damaged
from ospo_core.artifacts.manifest import Manifest, ShardEntry
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.storage_errors import MissingObjectError
from ospo_core.errors import StageError
from ospo_core.schema import SCHEMA_VERSION, TABLES

_ROW_GROUP = 4096
_ROWS_AT_ONCE = 64


def write_shard(
    storage: Storage,
    key: str,
    table: pa.Table,
    *,
    drops: Mapping[str, int] | None = None,
    counts: Mapping[str, float] | None = None,
    seconds: float = 0.0,
    extra: Mapping[str, Any] | None = None,
) -> ShardEntry:
    """Write `table` as the Parquet file `key` (`<stage>/<fingerprint>/part-00000.parquet`) and return its entry.

    Args:
        storage: where to write.
        key: its key; the file's name without suffix becomes the shard's name.
        table: the rows.
        drops: items dropped while computing it, by reason.
        counts: other named figures.
        seconds: wall time of computing it.
        extra: further facts to record.

    Raises:
        StorageError: it cannot be written.
    """
    data = encode_table(table)
    storage.write(key, data)
    return entry_of(PurePosixPath(key).stem, PurePosixPath(key).name, table, data).model_copy(
        update={
            "drops": dict(drops or {}),
            "counts": dict(counts or {}),
            "seconds": seconds,
            "extra": dict(extra or {}),
        }
    )


def entry_of(name: str, file: str, table: pa.Table, data: bytes) -> ShardEntry:
    """Return the entry of shard `name`, whose rows are `table` and whose Parquet bytes are `data`."""
    digest = hashlib.sha256(data).hexdigest()
    table_name = table_name_of(table.schema)
    return ShardEntry(name=name, file=file, table=table_name, rows=table.num_rows, sha256=digest, bytes=len(data))


def table_name_of(schema: pa.Schema) -> str:
    """Return the name of the table in ospo_core.schema.TABLES with these columns, or an empty string."""
    return next((name for name, known in TABLES.items() if known.equals(schema)), "")


def encode_table(table: pa.Table) -> bytes:
    """Return `table` as Parquet (zstd); the same rows give the same bytes, however the table is chunked."""
    table_name = table_name_of(table.schema)
    metadata = {"ospo.table": table_name, "ospo.schema_version": str(SCHEMA_VERSION)}
    whole = table.replace_schema_metadata(metadata).combine_chunks()
    sink = pa.BufferOutputStream()
    pq.write_table(whole, sink, compression="zstd", row_group_size=_ROW_GROUP, version="2.6")
    return cast(bytes, sink.getvalue().to_pybytes())


def read_shard(storage: Storage, manifest: Manifest, index: int, columns: Sequence[str] | None = None) -> pa.Table:
    """Return shard number `index`, after comparing its digest.

    Args:
        storage: where the stage was published.
        manifest: the stage.
        index: number of the shard, from 0.
        columns: names of the columns to read; None reads all.

    Raises:
        DamagedArtifactError: the file is missing or its bytes differ from what was published.
        StageError: a column is unknown.
    """
    key, entry = manifest.shard_key(index), manifest.shards[index]
    try:
        data = storage.read(key)
    except MissingObjectError as error:
        raise damaged(storage.uri(key), "is missing") from error
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise damaged(storage.uri(key), "its bytes are not those that were published")
    file = pq.ParquetFile(pa.BufferReader(data))
    unknown = sorted(set(columns or ()) - set(file.schema_arrow.names))
    if unknown:
        raise StageError("unknown columns", field=storage.uri(key), value=unknown, remedy="See ospo_core.schema.TABLES")
    return file.read(columns=list(columns) if columns is not None else None).replace_schema_metadata(None)


def read_table(storage: Storage, manifest: Manifest, columns: Sequence[str] | None = None) -> pa.Table:
    """Return all shards of a stage as one table; use `iter_rows` or `scan` for tables too large for memory.

    Raises:
        DamagedArtifactError, StageError: as `read_shard`; StageError also if the stage has no shard.
    """
    if not manifest.shards:
        raise StageError("has no shards", field=manifest.prefix, remedy="Read a stage that writes a table")
    return pa.concat_tables(read_shard(storage, manifest, index, columns) for index in range(len(manifest.shards)))


def iter_rows(storage: Storage, manifest: Manifest, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a stage in order, with one shard in memory at a time.

    Raises:
        DamagedArtifactError, StageError: as `read_shard`.
    """
    for index in range(len(manifest.shards)):
        for batch in read_shard(storage, manifest, index, columns).to_batches(max_chunksize=_ROWS_AT_ONCE):
            yield from batch.to_pylist()


def scan(storage: Storage, manifest: Manifest) -> pl.LazyFrame:
    """Return the stage as a lazy Polars frame, which reads only the columns and rows that a query needs.

    It does not compare digests; `load_manifest(verify=True)` does.

    Raises:
        StageError: the stage has no shard.
    """
    if not manifest.shards:
        raise StageError("has no shards", field=manifest.prefix, remedy="Read a stage that writes a table")
    addresses = [storage.uri(manifest.shard_key(index)) for index in range(len(manifest.shards))]
    return pl.scan_parquet(addresses, storage_options=storage.storage_options() or None, glob=False)
