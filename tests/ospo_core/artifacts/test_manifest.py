"""A stage is done if and only if its manifest is there and verifies, on a local disk and on a real object store."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pydantic import ValidationError

from ospo_core.artifacts.checksummed_json import dump_checksummed, load_checksummed
from ospo_core.artifacts.manifest import Manifest, load_manifest, manifest_key, prefix_of, publish_manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.tables import write_shard
from ospo_core.errors import DamagedArtifactError
from ospo_core.schema import SCHEMA_VERSION, StageName
from tests.support.tables import question_table

_STAGE, _FINGERPRINT = StageName.QUESTIONS, "f" * 64
_WRITERS = 16


def _publish(storage: Storage, **changes: Any) -> Manifest:
    """Write two shards and publish their manifest."""
    prefix = prefix_of(_STAGE, _FINGERPRINT)
    shards = tuple(
        write_shard(
            storage, f"{prefix}/part-0000{n}.parquet", question_table(3 * n, 3), drops={"unparsable": 1}, seconds=2
        )
        for n in range(2)
    )
    fields = {"ingredients": {"seed": 1}, "drops": {"unparsable": 2}, "counts": {"tokens": 12.5}, "seconds": 1.5}
    manifest = Manifest(stage=_STAGE, fingerprint=_FINGERPRINT, version=1, shards=shards, rows=6, items_in=8, **fields)
    return publish_manifest(storage, manifest.model_copy(update=changes))


def test_a_published_stage_is_found_again_as_it_was(storage: Storage) -> None:
    """None before, the same manifest after, with its schema version and time."""
    assert load_manifest(storage, _STAGE, _FINGERPRINT) is None
    published = _publish(storage)
    assert load_manifest(storage, _STAGE, _FINGERPRINT) == published
    assert published.schema_version == SCHEMA_VERSION and published.created_at.endswith("+00:00")
    assert storage.list(published.prefix)[0] == manifest_key(_STAGE, _FINGERPRINT)


def test_the_second_publisher_gets_the_first_manifest(storage: Storage) -> None:
    """Of 16 publishers one wins; all hold the winner's manifest afterwards."""
    with ThreadPoolExecutor(_WRITERS) as pool:
        manifest = _publish(storage)
        storage.delete(manifest_key(_STAGE, _FINGERPRINT))
        candidates = [manifest.model_copy(update={"seconds": float(number)}) for number in range(_WRITERS)]
        held = list(pool.map(lambda candidate: publish_manifest(storage, candidate), candidates))
    assert all(one == held[0] for one in held)
    assert load_manifest(storage, _STAGE, _FINGERPRINT) == held[0]


@pytest.mark.parametrize("position", [0, 0.3, 0.5, 0.999])
def test_one_flipped_byte_in_a_shard_is_found_and_named(storage: Storage, position: float) -> None:
    """The damaged file's address and the remedy are in the error; without verification it is not read."""
    manifest = _publish(storage)
    key = manifest.shard_key(1)
    storage.write(key, _flipped(storage.read(key), position))
    with pytest.raises(DamagedArtifactError, match=r"part-00001\.parquet.*--refresh"):
        load_manifest(storage, _STAGE, _FINGERPRINT)
    assert load_manifest(storage, _STAGE, _FINGERPRINT, verify=False) == manifest


def test_any_flipped_byte_in_the_manifest_is_found(local_storage: Storage) -> None:
    """Every single byte of manifest.json counts, white space and its own digest included."""
    _publish(local_storage)
    key = manifest_key(_STAGE, _FINGERPRINT)
    data = local_storage.read(key)
    for index in range(len(data)):
        with pytest.raises(DamagedArtifactError, match=r"manifest\.json"):
            load_checksummed(data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :], key)
    local_storage.write(key, data[:-20])
    with pytest.raises(DamagedArtifactError, match=r"manifest\.json"):
        load_manifest(local_storage, _STAGE, _FINGERPRINT, verify=False)


def test_a_flipped_byte_in_a_remote_manifest_is_found(storage: Storage) -> None:
    """The same through storage, for the loader and for a second publisher."""
    manifest = _publish(storage)
    key = manifest_key(_STAGE, _FINGERPRINT)
    storage.write(key, _flipped(storage.read(key), 0.5))
    with pytest.raises(DamagedArtifactError, match=r"manifest\.json"):
        load_manifest(storage, _STAGE, _FINGERPRINT, verify=False)
    with pytest.raises(DamagedArtifactError, match=r"manifest\.json"):
        publish_manifest(storage, manifest)


def test_a_missing_shard_is_damage(storage: Storage) -> None:
    """A manifest whose file has gone does not verify."""
    manifest = _publish(storage)
    storage.delete(manifest.shard_key(0))
    with pytest.raises(DamagedArtifactError, match=r"part-00000\.parquet.*missing"):
        load_manifest(storage, _STAGE, _FINGERPRINT)


def test_a_manifest_in_the_wrong_folder_is_damage(local_storage: Storage) -> None:
    """A manifest copied to another fingerprint is not taken for that stage's."""
    manifest = _publish(local_storage)
    local_storage.write(manifest_key(_STAGE, "0" * 64), dump_checksummed(manifest))
    with pytest.raises(DamagedArtifactError, match="another stage"):
        load_manifest(local_storage, _STAGE, "0" * 64, verify=False)


def test_the_digest_is_of_contents_alone(local_storage: Storage) -> None:
    """Times, counts, fingerprints and other extras leave the digest; rows, stage and extra["digest"] change it."""
    manifest = _publish(local_storage)
    same = {"seconds": 9.0, "created_at": "later", "counts": {}, "extra": {"note": 1}, "fingerprint": "0" * 64}
    assert manifest.model_copy(update=same).digest == manifest.digest
    reversed_shards = tuple(reversed(manifest.shards))
    for change in ({"extra": {"digest": "x"}}, {"stage": StageName.PAIRS}, {"shards": reversed_shards}, {"shards": ()}):
        assert manifest.model_copy(update=change).digest != manifest.digest


def test_a_manifest_that_has_told_its_digest_is_equal_to_one_that_has_not_and_its_copies_tell_their_own(
    local_storage: Storage,
) -> None:
    published = _publish(local_storage)
    found = load_manifest(local_storage, _STAGE, _FINGERPRINT)
    written, digest = dump_checksummed(published), published.digest
    assert found == published and dump_checksummed(published) == written and found.digest == digest
    fewer = published.model_copy(update={"shards": published.shards[:1]})
    assert fewer.digest == Manifest.model_validate(fewer.model_dump()).digest != digest
    assert published.model_copy().digest == digest


def test_manifests_are_frozen_and_refuse_unknown_fields() -> None:
    """A misspelt field is an error, and a manifest cannot be changed after it was made."""
    manifest = Manifest(stage=_STAGE, fingerprint=_FINGERPRINT, version=1, rows=0, items_in=0)
    with pytest.raises(ValidationError):
        manifest.rows = 5  # type: ignore[misc]  # the assignment is what is tested
    with pytest.raises(ValidationError):
        Manifest.model_validate({**manifest.model_dump(), "rowz": 1})


@pytest.mark.parametrize(
    "ingredients",
    [
        {"upstream": "pairs"},
        {"upstream": {"pairs": 1}},
        {"fields": "training"},
        {"fields": {"training": "steps"}},
        {"fields": {"selection": ["v2"]}},
    ],
)
def test_ingredients_have_the_parts_that_others_read(ingredients: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="ingredients"):
        Manifest(stage=_STAGE, fingerprint=_FINGERPRINT, version=1, rows=0, items_in=0, ingredients=ingredients)


def test_no_credential_reaches_a_manifest(s3_storage: Storage) -> None:
    """The published bytes hold neither key, nor secret, nor endpoint."""
    _publish(s3_storage)
    data = s3_storage.read(manifest_key(_STAGE, _FINGERPRINT))
    assert not any(word in data for word in (b"testkey", b"testsecret", b"127.0.0.1"))


def _flipped(data: bytes, position: float) -> bytes:
    """Return `data` with one bit changed in the byte at `position` (share of the length)."""
    index = int(position * len(data))
    return data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :]
