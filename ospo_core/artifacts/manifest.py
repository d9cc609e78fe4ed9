"""Manifests: what a finished stage made, from what, with digests. A stage is done iff its manifest verifies."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ospo_core.artifacts.checksummed_json import damaged, dump_checksummed, load_checksummed
from ospo_core.artifacts.ids import digest_of
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.storage_errors import MissingObjectError
from ospo_core.schema import SCHEMA_VERSION, StageName

_MANIFEST = "manifest.json"


class _Record(BaseModel):
    """Base of the records kept as JSON: immutable, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ShardEntry(_Record):
    """One shard: a Parquet file, what it holds and what was dropped while making it."""

    name: str = Field(description="Name of the shard, `part-00000`.")
    file: str = Field(description="Name of its Parquet file in the stage's folder.")
    table: str = Field(description="Table of ospo_core.schema.TABLES, or empty where the columns are of none.")
    rows: int = Field(ge=0)
    sha256: str = Field(description="Of the Parquet file's bytes, hex.")
    bytes: int = Field(ge=0, description="Size of the Parquet file.")
    drops: dict[str, int] = Field(default_factory=dict, description="Items dropped, by reason.")
    counts: dict[str, float] = Field(default_factory=dict, description="Other named figures: tokens, calls, images.")
    seconds: float = Field(0.0, ge=0, description="Wall time of making it.")
    cpu_seconds: float = Field(0.0, ge=0, description="Processor time of making it, ended child processes included.")
    gpu_seconds: float = Field(0.0, ge=0, description="Wall time of making it, times the GPUs that it held.")
    extra: dict[str, Any] = Field(default_factory=dict, description="What else the stage wants to remember.")


class Manifest(_Record):
    """A finished stage: identity, ingredients, shards, drops and timings. Small, JSON, safe to pass between tasks."""

    stage: StageName
    fingerprint: str = Field(description="sha256 over the ingredients (design, decision 3).")
    version: int = Field(description="Version of the stage's code.")
    schema_version: int = SCHEMA_VERSION
    ingredients: dict[str, Any] = Field(default_factory=dict, description="What the fingerprint was made of.")
    shards: tuple[ShardEntry, ...] = ()
    rows: int = Field(ge=0)
    items_in: int = Field(ge=0, description="Items that came in; rows plus drops account for them.")
    drops: dict[str, int] = Field(default_factory=dict, description="Items dropped, by reason, over all shards.")
    counts: dict[str, float] = Field(default_factory=dict, description="Other named figures.")
    extra: dict[str, Any] = Field(default_factory=dict, description="Stage-specific; `digest` enters the digest.")
    seconds: float = Field(0.0, ge=0, description="Wall time of the stage.")
    cpu_seconds: float = Field(0.0, ge=0, description="Processor time of the stage.")
    gpu_seconds: float = Field(0.0, ge=0, description="Time of the GPUs that the stage held.")
    created_at: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @cached_property
    def digest(self) -> str:
        """sha256 of what was made: stage, shard contents in order, `extra["digest"]`; not names, times or counts.

        Every shard of a later stage asks for it, so it is reckoned once.
        """
        contents = [[shard.table, shard.sha256] for shard in self.shards]
        return digest_of([self.stage, contents, self.extra.get("digest")])

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with some fields changed, which reckons its own digest."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("digest", None)
        return copied

    @property
    def prefix(self) -> str:
        """The folder of this stage's files below the storage root."""
        return prefix_of(self.stage, self.fingerprint)

    def shard_key(self, index: int) -> str:
        """Return the storage key of shard number `index`."""
        return f"{self.prefix}/{self.shards[index].file}"


def prefix_of(stage: StageName, fingerprint: str) -> str:
    """Return the folder of a stage's files below the storage root."""
    return f"{StageName(stage)}/{fingerprint}"


def manifest_key(stage: StageName, fingerprint: str) -> str:
    """Return the storage key of a stage's manifest."""
    return f"{prefix_of(stage, fingerprint)}/{_MANIFEST}"


def publish_manifest(storage: Storage, manifest: Manifest) -> Manifest:
    """Publish `manifest`, last of all its files; return the manifest that is now there.

    Of several writers one wins; the others get the winner's manifest back, without verifying its shards.

    Raises:
        DamagedArtifactError: another manifest is there and its bytes are damaged.
        StorageError: the storage cannot be written.
    """
    key = manifest_key(manifest.stage, manifest.fingerprint)
    if storage.create(key, dump_checksummed(manifest)):
        return manifest
    return _parse(storage.read(key), storage.uri(key), manifest.stage, manifest.fingerprint)


def load_manifest(storage: Storage, stage: StageName, fingerprint: str, verify: bool = True) -> Manifest | None:
    """Return the manifest of a finished stage, or None where the stage is not finished.

    Args:
        storage: where the stage was published.
        stage: its name.
        fingerprint: its fingerprint.
        verify: read every shard as well, a block at a time, and compare its digest.

    Raises:
        DamagedArtifactError: the manifest or one of its shards is damaged or missing; the file is named.
        StorageError: the storage cannot be read.
    """
    key = manifest_key(stage, fingerprint)
    try:
        data = storage.read(key)
    except MissingObjectError:
        return None
    manifest = _parse(data, storage.uri(key), stage, fingerprint)
    for entry in manifest.shards if verify else ():
        verify_shard(storage, manifest.prefix, entry)
    return manifest


def verify_shard(storage: Storage, prefix: str, entry: ShardEntry) -> None:
    """Check that the file of `entry` is there and has the bytes that were published.

    Raises:
        DamagedArtifactError: it is missing or its bytes differ.
    """
    key = f"{prefix}/{entry.file}"
    try:
        digest, _ = storage.sha256(key)
    except MissingObjectError as error:
        raise damaged(storage.uri(key), "is missing") from error
    if digest != entry.sha256:
        raise damaged(storage.uri(key), "its bytes are not those that were published")


def _parse(data: bytes, name: str, stage: StageName, fingerprint: str) -> Manifest:
    """Return the manifest in `data`, checked against the place where it was found."""
    try:
        manifest = Manifest.model_validate(load_checksummed(data, name))
    except ValidationError as error:
        raise damaged(name, "is no manifest of this version") from error
    if (manifest.stage, manifest.fingerprint) != (stage, fingerprint):
        raise damaged(name, "belongs to another stage")
    return manifest
