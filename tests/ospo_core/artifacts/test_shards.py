"""Shards publish one by one: what is published is found and verified, and two attempts never mix."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from ospo_core.artifacts.manifest import Manifest, ShardEntry, load_manifest, prefix_of, publish_manifest
from ospo_core.artifacts.shards import load_shard_entry, publish_shard
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.tables import read_table
from ospo_core.errors import DamagedArtifactError, StorageError
from ospo_core.schema import StageName
from tests.support.tables import question_table

_PREFIX = prefix_of(StageName.QUESTIONS, "f")


def _publish(storage: Storage, number: int, start: int, rows: int = 2) -> ShardEntry:
    """Publish shard `number` with questions of the items from `start` on."""
    name = f"part-{number:05d}"
    return publish_shard(
        storage, _PREFIX, name, question_table(start, rows), {"unparsable": 1}, {"calls": 4}, 0.5, {"note": "x"}
    )


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
    resumed = Manifest(stage=StageName.QUESTIONS, fingerprint="f", version=1, shards=shards, rows=6, items_in=9)
    publish_manifest(storage, resumed)
    assert load_manifest(storage, StageName.QUESTIONS, "f") == resumed
    assert read_table(storage, resumed).equals(question_table(0, 6))
    storage.delete_folder(_PREFIX)
    fresh = tuple(_publish(storage, number, number * 2) for number in range(3))
    assert resumed.model_copy(update={"shards": fresh}).digest == resumed.digest


def _killed(_storage: Storage, _key: str, _data: bytes) -> bool:
    raise StorageError("killed here")
