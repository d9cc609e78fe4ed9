"""Manifests: what a finished stage produced, from what, with digests. A stage is done iff its manifest verifies."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ospo_core.artifacts.addresses import StorageKey
from ospo_core.artifacts.checksummed_json import damaged, dump_checksummed, load_checksummed
from ospo_core.artifacts.ids import Digest, digest_of
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.storage_errors import MissingObjectError
from ospo_core.errors import DamagedArtifactError
from ospo_core.schema import SCHEMA_VERSION, StageName


class _Record(BaseModel):
    """Base of the records kept as JSON: immutable, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ShardEntry(_Record):
    """One shard: a Parquet file, its contents, and what was dropped while computing it."""

    name: str = Field(description="Name of the shard, `part-00000`.")
    file: StorageKey = Field(description="Name of its Parquet file in the stage's folder.")
    table: str = Field(description="Table of ospo_core.schema.TABLES; empty if the columns match none.")
    rows: int = Field(ge=0)
    sha256: Digest = Field(description="Of the Parquet file's bytes, hex.")
    bytes: int = Field(ge=0, description="Size of the Parquet file.")
    drops: dict[str, int] = Field(default_factory=dict, description="Items dropped, by reason.")
    counts: dict[str, float] = Field(default_factory=dict, description="Other named figures: tokens, calls, images.")
    seconds: float = Field(0.0, ge=0, description="Wall time of computing it.")
    cpu_seconds: float = Field(0.0, ge=0, description="Processor time of computing it, with ended child processes.")
    gpu_seconds: float = Field(0.0, ge=0, description="Wall time of computing it, times the number of GPUs it held.")
    extra: dict[str, Any] = Field(default_factory=dict, description="Further facts that the stage records.")


class Manifest(_Record):
    """A finished stage: identity, ingredients, shards, drops and timings. Small, JSON, safe to pass between tasks."""

    stage: StageName
    fingerprint: Digest = Field(description="sha256 of the ingredients (docs/architecture.md, decision 3).")
    version: int = Field(description="Version of the stage's code.")
    schema_version: int = SCHEMA_VERSION
    ingredients: dict[str, Any] = Field(default_factory=dict, description="What the fingerprint was computed from.")
    shards: tuple[ShardEntry, ...] = ()
    rows: int = Field(ge=0)
    items_in: int = Field(ge=0, description="Number of input items; rows plus drops account for them.")
    drops: dict[str, int] = Field(default_factory=dict, description="Items dropped, by reason, over all shards.")
    counts: dict[str, float] = Field(default_factory=dict, description="Other named figures.")
    extra: dict[str, Any] = Field(default_factory=dict, description="Stage-specific; `digest` is part of the digest.")
    seconds: float = Field(0.0, ge=0, description="Wall time of the stage.")
    cpu_seconds: float = Field(0.0, ge=0, description="Processor time of the stage.")
    gpu_seconds: float = Field(0.0, ge=0, description="Time of the GPUs the stage held.")
    created_at: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @field_validator("ingredients")
    @classmethod
    def _names_its_upstream(cls, ingredients: dict[str, Any]) -> dict[str, Any]:
        upstream = ingredients.get("upstream", {})
        if not isinstance(upstream, dict) or not all(isinstance(content, str) for content in upstream.values()):
            raise ValueError("`upstream` gives the content of each earlier stage as text")
        if not all(isinstance(ingredients.get(part) or {}, dict) for part in ("fields", "model", "redo")):
            raise ValueError("`fields`, `model` and `redo` have named parts")
        fields = ingredients.get("fields") or {}
        if not all(isinstance(fields.get(section) or {}, dict) for section in ("selection", "training")):
            raise ValueError("`selection` and `training` of `fields` have named parts")
        return ingredients

    @cached_property
    def digest(self) -> str:
        """sha256 of the result: stage, shard contents in order, `extra["digest"]`; not names, times or counts.

        It is cached, since every shard of a later stage needs it.
        """
        contents = [[shard.table, shard.sha256] for shard in self.shards]
        return digest_of([self.stage, contents, self.extra.get("digest")])

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with some fields changed, which computes its own digest."""
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
    return f"{prefix_of(stage, fingerprint)}/manifest.json"


def publish_manifest(storage: Storage, manifest: Manifest) -> Manifest:
    """Publish `manifest`, after all its files; return the published manifest.

    Of several writers one wins; the others get the winner's manifest, whose shards are not verified.

    Raises:
        DamagedArtifactError: a file of `manifest` has gone or has another size, which is found out by one listing; or
            another manifest was published and is damaged.
        StorageError: the storage cannot be written.
    """
    _check_files(storage, manifest)
    key = manifest_key(manifest.stage, manifest.fingerprint)
    if storage.create(key, dump_checksummed(manifest)):
        return manifest
    return _parse(storage.read(key), storage.uri(key), manifest.stage, manifest.fingerprint)


def load_manifest(storage: Storage, stage: StageName, fingerprint: str, verify: bool = True) -> Manifest | None:
    """Return the manifest of a finished stage, or None if the stage is not finished.

    With `verify`, every shard is also read, block by block, and its digest compared.

    Raises:
        DamagedArtifactError: the manifest or one of its shards is damaged or missing; the error names the file.
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


def _check_files(storage: Storage, manifest: Manifest) -> None:
    """Check that the files of a stage that is about to be published are there: hours may have passed meanwhile."""
    sizes = {one.key: one.size for one in storage.details(manifest.prefix)} if manifest.shards else {}
    for index, entry in enumerate(manifest.shards):
        key = manifest.shard_key(index)
        if sizes.get(key) != entry.bytes:
            raise DamagedArtifactError(
                f"shard {entry.name} {'changed' if key in sizes else 'was deleted'} while its stage was running",
                field=storage.uri(key),
                remedy="Run again: shards that are no longer there are computed anew",
            )


def verify_shard(storage: Storage, prefix: str, entry: ShardEntry) -> None:
    """Check that the file of `entry` exists and has the published bytes.

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
    """Return the manifest in `data`, checked against the stage and fingerprint of its folder."""
    try:
        manifest = Manifest.model_validate(load_checksummed(data, name))
    except ValidationError as error:
        raise damaged(name, "is not a manifest of this version") from error
    if (manifest.stage, manifest.fingerprint) != (stage, fingerprint):
        raise damaged(name, "belongs to another stage")
    return manifest
