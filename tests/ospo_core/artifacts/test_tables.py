"""Shards are the same to the byte for the same rows, verified when read, and streamed one at a time.

They publish one by one: what is published is found and verified, and two attempts never mix.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ospo_core.artifacts import tables
from ospo_core.artifacts.checksummed_json import dump_checksummed
from ospo_core.artifacts.manifest import Manifest, ShardEntry, load_manifest, prefix_of, publish_manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.tables import (
    encode_table,
    iter_rows,
    load_shard_entry,
    publish_shard,
    read_shard,
    read_table,
    select,
    write_shard,
)
from ospo_core.errors import DamagedArtifactError, StageError, StorageError
from ospo_core.schema import SCHEMA_VERSION, TABLES, StageName, table_from_rows
from tests.support.tables import question_table

_PREFIX = prefix_of(StageName.QUESTIONS, "f" * 64)


def _stage(storage: Storage, parts: Sequence[pa.Table]) -> Manifest:
    """Write `parts` as the shards of one stage."""
    shards = tuple(write_shard(storage, f"{_PREFIX}/part-{n:05d}.parquet", part) for n, part in enumerate(parts))
    rows = sum(part.num_rows for part in parts)
    return Manifest(stage=StageName.QUESTIONS, fingerprint="f" * 64, version=1, shards=shards, rows=rows, items_in=rows)


def test_rows_come_back_in_order_and_by_column(storage: Storage) -> None:
    """Tables, single shards, rows and chosen rows all give what was written."""
    manifest = _stage(storage, [question_table(0, 3), question_table(3, 2)])
    whole = question_table(0, 5)
    assert read_table(storage, manifest).equals(whole)
    assert read_shard(storage, manifest, 1).equals(question_table(3, 2))
    assert read_table(storage, manifest, ["prompt"]).column_names == ["prompt"]
    assert list(iter_rows(storage, manifest)) == whole.to_pylist()
    found = select(storage, manifest, ["item_id"], pl.col("item_id") == "item-4")
    assert found["item_id"].to_list() == ["item-4"]
    assert select(storage, manifest, ["prompt"])["prompt"].to_list() == whole["prompt"].to_pylist()


def test_an_entry_says_what_the_shard_is(storage: Storage) -> None:
    """Name, file, table, rows, size and digest of the entry are those of the file that is there."""
    entry = write_shard(
        storage, f"{_PREFIX}/part-00007.parquet", question_table(0, 3), drops={"duplicate": 2}, seconds=1
    )
    assert (entry.name, entry.file, entry.table, entry.rows) == ("part-00007", "part-00007.parquet", "questions", 3)
    assert (entry.sha256, entry.bytes) == storage.sha256(f"{_PREFIX}/part-00007.parquet")
    assert entry.drops == {"duplicate": 2} and entry.seconds == 1


def test_the_same_rows_give_the_same_bytes() -> None:
    """Chunking and foreign metadata leave the file as it is; another order of rows does not."""
    whole, chunked = question_table(0, 5), pa.concat_tables([question_table(0, 2), question_table(2, 3)])
    assert encode_table(whole) == encode_table(chunked.replace_schema_metadata({"made": "today"}))
    assert encode_table(whole) != encode_table(whole.take([1, 0, 2, 3, 4]))


def test_files_are_ordinary_parquet_with_table_and_version(local_storage: Storage) -> None:
    """Other tools can read a shard; zstd, and the schema's name and version in its metadata."""
    manifest = _stage(local_storage, [question_table(0, 3)])
    file = pq.ParquetFile(Path(local_storage.uri(manifest.shard_key(0))))
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    assert file.schema_arrow.metadata[b"ospo.table"] == b"questions"
    assert file.schema_arrow.metadata[b"ospo.schema_version"] == str(SCHEMA_VERSION).encode()


@pytest.mark.parametrize("name", sorted(TABLES))
def test_every_table_survives_the_round_trip_empty(local_storage: Storage, name: str) -> None:
    """An empty shard keeps its columns and types, lists of structs included."""
    manifest = _stage(local_storage, [table_from_rows(name, [])])
    assert manifest.shards[0].table == name
    assert read_table(local_storage, manifest).schema.equals(TABLES[name])
    assert list(iter_rows(local_storage, manifest)) == []


def test_tokens_and_pictures_survive_exactly(storage: Storage) -> None:
    """uint16 codes up to 65535, uint64 seeds and picture bytes come back as they were."""
    row = {
        "item_id": "a", "variant": 1, "side": "base", "dense_prompt": "p", "seed": 2**63 - 1,
        "tokens": np.array([0, 65535], dtype=np.uint16), "image": {"bytes": bytes(range(256)), "path": "a.png"},
        "mean_logprob": -1.25,
    }  # fmt: skip
    manifest = _stage(storage, [table_from_rows("images", [row])])
    assert next(iter_rows(storage, manifest)) == {**row, "tokens": [0, 65535]}


def test_a_changed_or_missing_shard_is_never_read(storage: Storage) -> None:
    """One flipped byte in the last shard stops the reading there, by name; so does a missing file."""
    manifest = _stage(storage, [question_table(0, 3), question_table(3, 3)])
    key = manifest.shard_key(1)
    data = bytearray(storage.read(key))
    data[len(data) // 2] ^= 4
    storage.write(key, bytes(data))
    rows = iter_rows(storage, manifest)
    assert [next(rows)["item_id"] for _ in range(3)] == ["item-0", "item-1", "item-2"]
    with pytest.raises(DamagedArtifactError, match=r"part-00001\.parquet"):
        next(rows)
    storage.delete(key)
    for read in (read_table, select):
        with pytest.raises(DamagedArtifactError, match="missing"):
            read(storage, manifest, ["prompt"])


def test_streaming_holds_one_shard_at_a_time(local_storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard is read only when its first row is asked for, and memory does not grow with their number."""
    table = question_table(0, 2000)
    manifest = _stage(local_storage, [table] * 12)
    reads: list[int] = []

    def recorded(storage: Storage, stage: Manifest, index: int, columns: Sequence[str] | None) -> pa.Table:
        reads.append(index)
        return read_shard(storage, stage, index, columns)

    monkeypatch.setattr(tables, "read_shard", recorded)
    held, most = pa.total_allocated_bytes(), 0
    for number, _row in enumerate(iter_rows(local_storage, manifest)):
        assert reads[-1] == number // 2000
        most = max(most, pa.total_allocated_bytes() - held)
    assert len(reads) == 12
    assert most < 4 * table.nbytes


def test_unknown_columns_and_empty_stages_are_told(local_storage: Storage) -> None:
    """A misspelt column and a stage without shards are errors that name the place."""
    manifest = _stage(local_storage, [question_table(0, 1)])
    with pytest.raises(StageError, match="promt"):
        read_table(local_storage, manifest, ["promt"])
    empty = manifest.model_copy(update={"shards": ()})
    for read in (read_table, select):
        with pytest.raises(StageError, match="no shards"):
            read(local_storage, empty, ["prompt"])


def _publish(storage: Storage, number: int, start: int, rows: int = 2) -> ShardEntry:
    """Publish shard `number` with questions of the items from `start` on."""
    name = f"part-{number:05d}"
    figures = {"drops": {"unparsable": 1}, "counts": {"calls": 4}, "seconds": 0.5, "extra": {"note": "x"}}
    return publish_shard(storage, _PREFIX, name, question_table(start, rows), **figures)


def test_a_published_shard_is_found_as_it_was(storage: Storage) -> None:
    """None before; afterwards the same entry, with drops, counts and extra."""
    assert load_shard_entry(storage, _PREFIX, "part-00000") is None
    entry = _publish(storage, 0, 0)
    assert load_shard_entry(storage, _PREFIX, "part-00000") == entry
    assert (entry.drops, entry.counts, entry.extra) == ({"unparsable": 1}, {"calls": 4.0}, {"note": "x"})
    assert load_shard_entry(storage, _PREFIX, "part-00001") is None


def test_rows_without_their_entry_are_not_published(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run killed between rows and entry counts for nothing, and the next one ends with the same digest."""
    with monkeypatch.context() as patch, pytest.raises(StorageError, match="killed"):
        patch.setattr(Storage, "create", _killed)
        _publish(storage, 0, 0)
    assert len(storage.list(_PREFIX)) == 1 and load_shard_entry(storage, _PREFIX, "part-00000") is None
    assert _publish(storage, 0, 0).file == storage.list(_PREFIX)[0].rpartition("/")[2]


def test_two_attempts_never_mix(storage: Storage) -> None:
    """Eight attempts with different rows: one wins, all return it, and only its rows stay."""
    with ThreadPoolExecutor(8) as pool:
        entries = list(pool.map(lambda start: _publish(storage, 0, start), range(8)))
    assert all(entry == entries[0] for entry in entries)
    assert load_shard_entry(storage, _PREFIX, "part-00000") == entries[0]
    assert storage.list(_PREFIX) == sorted([f"{_PREFIX}/part-00000.json", f"{_PREFIX}/{entries[0].file}"])


def test_damaged_rows_and_entries_are_found_and_named(storage: Storage) -> None:
    """One flipped byte in the rows, then in the entry, is an error that names the file."""
    entry = _publish(storage, 0, 0)
    for file in (entry.file, "part-00000.json"):
        data = storage.read(f"{_PREFIX}/{file}")
        storage.write(f"{_PREFIX}/{file}", data[:40] + bytes([data[40] ^ 1]) + data[41:])
        with pytest.raises(DamagedArtifactError, match=file):
            load_shard_entry(storage, _PREFIX, "part-00000")
        storage.write(f"{_PREFIX}/{file}", data)


def test_a_resumed_stage_has_the_digest_of_an_uninterrupted_one(storage: Storage) -> None:
    """Shards of two runs make the same manifest, to the digest, as shards of one."""
    for number in (0, 1, 0, 1, 2):
        _publish(storage, number, number * 2)
    loaded = [load_shard_entry(storage, _PREFIX, f"part-{number:05d}") for number in range(3)]
    shards = tuple(entry for entry in loaded if entry)
    resumed = Manifest(stage=StageName.QUESTIONS, fingerprint="f" * 64, version=1, shards=shards, rows=6, items_in=9)
    publish_manifest(storage, resumed)
    assert load_manifest(storage, StageName.QUESTIONS, "f" * 64) == resumed
    assert read_table(storage, resumed).equals(question_table(0, 6))
    storage.delete_folder(_PREFIX)
    fresh = tuple(_publish(storage, number, number * 2) for number in range(3))
    assert resumed.model_copy(update={"shards": fresh}).digest == resumed.digest


@pytest.mark.parametrize(
    "copy", ["part-00001.json", "images", f"{StageName.QUESTIONS}/{'e' * 64}"], ids=["shard", "stage", "fingerprint"]
)
def test_the_entry_of_another_shard_or_stage_is_not_taken(local_storage: Storage, copy: str) -> None:
    """Neither swapped within a folder, nor moved to another stage together with its rows."""
    entry = _publish(local_storage, 0, 0)
    data = local_storage.read(f"{_PREFIX}/part-00000.json")
    if copy.endswith(".json"):
        local_storage.write(f"{_PREFIX}/{copy}", data)
        place = _PREFIX, "part-00001"
    else:
        local_storage.write(f"{copy}/part-00000.json", data)
        local_storage.write(f"{copy}/{entry.file}", local_storage.read(f"{_PREFIX}/{entry.file}"))
        place = copy, "part-00000"
    with pytest.raises(DamagedArtifactError, match=f"{place[0]}/{place[1]}.json.*another shard or stage"):
        load_shard_entry(local_storage, *place)


def test_an_entry_of_an_earlier_version_is_found(local_storage: Storage) -> None:
    """It does not say in which folder it was made."""
    entry = _publish(local_storage, 0, 0)
    local_storage.write(f"{_PREFIX}/part-00000.json", dump_checksummed(entry))
    assert load_shard_entry(local_storage, _PREFIX, "part-00000") == entry


@pytest.mark.parametrize("change", [{"file": "../x"}, {"file": "/etc/passwd"}, {"sha256": "x"}, {"sha256": "A" * 64}])
def test_a_forged_entry_is_damage(local_storage: Storage, change: dict[str, str]) -> None:
    """Its checksum is right, but it names a file elsewhere or no digest."""
    entry = _publish(local_storage, 0, 0)
    local_storage.write(f"{_PREFIX}/part-00000.json", dump_checksummed({**entry.model_dump(), **change}))
    with pytest.raises(DamagedArtifactError, match=r"part-00000\.json.*not a shard entry"):
        load_shard_entry(local_storage, _PREFIX, "part-00000")


@pytest.mark.parametrize("cut", [0, 3, 4, 12, 100, -1, -4, -8])
def test_rows_that_are_no_parquet_are_named(local_storage: Storage, cut: int) -> None:
    """A cut file is damage, even if the manifest was forged to have its digest."""
    manifest = _stage(local_storage, [question_table(0, 50)])
    data = local_storage.read(manifest.shard_key(0))[:cut]
    local_storage.write(manifest.shard_key(0), data)
    entry = manifest.shards[0].model_copy(update={"sha256": hashlib.sha256(data).hexdigest()})
    with pytest.raises(DamagedArtifactError, match=r"part-00000\.parquet.*not a Parquet file"):
        read_shard(local_storage, manifest.model_copy(update={"shards": (entry,)}), 0)


@pytest.mark.parametrize(("change", "word"), [(None, "was deleted"), (b"x", "changed")])
def test_publishing_checks_that_all_shards_are_still_there(storage: Storage, change: bytes | None, word: str) -> None:
    """A shard that vanished while others were computed is named, and nothing is published."""
    manifest = _stage(storage, [question_table(0, 3), question_table(3, 3)])
    if change is None:
        storage.delete(manifest.shard_key(0))
    else:
        storage.write(manifest.shard_key(0), change)
    with pytest.raises(DamagedArtifactError, match=rf"part-00000\.parquet: shard part-00000 {word}.*Run again"):
        publish_manifest(storage, manifest)
    assert load_manifest(storage, StageName.QUESTIONS, "f" * 64) is None


def _killed(_storage: Storage, _key: str, _data: bytes) -> bool:
    raise StorageError("killed here")
