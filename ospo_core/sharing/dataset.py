"""The pairs of a round as a dataset folder of Hugging Face, and on demand its prompts, pictures and scores.

`datasets.load_dataset(folder)` opens it: Parquet with pictures, one split per category, and a card (`README.md`). The
round is read shard by shard, so memory does not grow with it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.tables import read_shard
from ospo_core.errors import StageError
from ospo_core.schema import Category, StageName
from ospo_core.sharing import Part
from ospo_core.sharing.cards import Provenance, SharedTable, dataset_card
from ospo_core.sharing.features import with_features
from ospo_core.sharing.folder import CARD, shared_folder
from ospo_core.sharing.rows import PAIRS, SPLIT, schema_of, shared_pairs, trl_rows, with_category

_FILE_BYTES = 256 * 2**20
"""A Parquet file is closed when it is at least this large."""
_ROW_GROUP = 100
"""Rows of a row group; a choice of `datasets` for pictures, so that a viewer reads a page and not the file."""
_CATEGORIES = pa.array([category.value for category in Category], pa.string())
_WITHOUT_CATEGORY = "other"
"""Split of rows without one of these categories; a text from a table is no file name."""

Manifests = Mapping[StageName, Manifest]


def export_dataset(
    storage: Storage, manifests: Manifests, out: Path, parts: Collection[Part], provenance: Provenance
) -> list[SharedTable]:
    """Write the pairs of a round, and the parts, into the new folder `out`; return what it holds.

    Args:
        storage: holds the tables.
        manifests: of the round's finished stages.
        out: a new or empty folder.
        parts: what is wanted beside the pairs.
        provenance: what the card says of the origin.

    Raises:
        StageError: a stage that is wanted is not done.
        ConfigError: there is something at `out` already.
        StorageError: a table cannot be read, or the folder cannot be written.
    """
    for stage in [StageName.PROMPTS, StageName.PAIRS, *(StageName(part) for part in parts if part is not Part.TRL)]:
        if stage not in manifests:
            raise StageError(
                "is not done, so it cannot be exported",
                field=f"stage {stage}",
                remedy="Run the round first (`ospo round`), with the same options",
            )
    with shared_folder(out) as folder:
        written = [_write_pairs(storage, manifests, folder, provenance.model.digest)]
        written += [_write_part(storage, manifests, folder, part) for part in Part if part in parts]
        (folder / CARD).write_text(dataset_card(written, manifests, provenance), encoding="utf-8")
    return written


def _write_pairs(storage: Storage, manifests: Manifests, folder: Path, model: str) -> SharedTable:
    manifest = manifests[StageName.PAIRS]

    def tables() -> Iterator[tuple[pa.Table, pa.ChunkedArray]]:
        first = 0
        for index in range(len(manifest.shards)):
            table = read_shard(storage, manifest, index)
            yield shared_pairs(table, first, model), table[SPLIT]
            first += len(table)

    return _write(PAIRS, folder / "data", tables())


def _write_part(storage: Storage, manifests: Manifests, folder: Path, part: Part) -> SharedTable:
    stage = StageName.PAIRS if part is Part.TRL else StageName(part)
    manifest, prompts = manifests[stage], manifests[StageName.PROMPTS]

    def tables() -> Iterator[tuple[pa.Table, pa.ChunkedArray]]:
        for index in range(len(manifest.shards)):
            table = read_shard(storage, manifest, index)
            if part is Part.TRL:
                yield trl_rows(table), table.filter(pc.is_valid(table["negative_prompt"]))[SPLIT]
                continue
            known = read_shard(storage, prompts, index, ["item_id", SPLIT]).to_pylist()
            table = with_category(table, {row["item_id"]: row[SPLIT] for row in known})
            yield table, table[SPLIT]

    return _write(part.value, folder / part.value, tables())


def _write(name: str, folder: Path, tables: Iterator[tuple[pa.Table, pa.ChunkedArray]]) -> SharedTable:
    """Write tables, each with the category of its rows, into one series of files per category."""
    schema = with_features(schema_of(name))
    files: dict[str, _Files] = {}
    try:
        for table, categories in tables:
            splits = pc.if_else(pc.is_in(categories, _CATEGORIES), categories, _WITHOUT_CATEGORY)
            for split in pc.unique(splits).to_pylist():
                series = files.setdefault(split, _Files(folder, split, schema))
                series.write(table.filter(pc.equal(splits, split)))
    finally:
        for series in files.values():
            series.close()
    rows = {split: series.rows for split, series in sorted(files.items())}
    sizes = {split: series.memory for split, series in sorted(files.items())}
    stored = sum(series.size for series in files.values())
    return SharedTable(name=name, folder=folder.name, columns=schema, rows=rows, sizes=sizes, file_bytes=stored)


class _Files:
    """The Parquet files of one split, written one after the other."""

    def __init__(self, folder: Path, split: str, schema: pa.Schema) -> None:
        self._folder, self._split, self._schema = folder, split, schema
        self._number, self._path = 0, folder
        self._writer: pq.ParquetWriter | None = None
        self.rows, self.memory, self.size = 0, 0, 0

    def write(self, table: pa.Table) -> None:
        """Append rows, and begin another file once this one is large."""
        if self._writer is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._path = self._folder / f"{self._split}-{self._number:05d}.parquet"
            self._writer = pq.ParquetWriter(self._path, self._schema, compression="zstd", version="2.6")
        self._writer.write_table(table.cast(self._schema), row_group_size=_ROW_GROUP)
        self.rows += len(table)
        self.memory += table.nbytes
        if self._path.stat().st_size >= _FILE_BYTES:
            self.close()

    def close(self) -> None:
        """Close the file that is being written, if any."""
        if self._writer is not None:
            self._writer.close()
            self.size += self._path.stat().st_size
            self._writer, self._number = None, self._number + 1
