"""Imported pairs in the storage: shards of the table `pairs` under `imports/<digest>`, and their manifest.

The digest is that of the content, and it is what a training names (`training.imported_pairs`) and is identified by. No
round makes imports, so garbage collection never removes them: delete the folder by hand.
"""

from __future__ import annotations

import re

from pydantic import Field, ValidationError

from ospo_core.artifacts.checksummed_json import dump_checksummed, load_checksummed
from ospo_core.artifacts.ids import digest_of
from ospo_core.artifacts.manifest import ShardEntry
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.storage_errors import MissingObjectError
from ospo_core.config.sections import Section
from ospo_core.errors import ConfigError, DamagedArtifactError
from ospo_core.schema import SCHEMA_VERSION

IMPORTS = "imports"
"""Folder of the storage that holds imported pairs."""
REJECTED = "rejected.jsonl"
"""File of an import with its rejected rows: where each was, and why."""
OPTION = "training.imported_pairs"

_DIGEST = re.compile(r"[0-9a-f]{64}")


class ImportedPairs(Section):
    """The manifest of an import."""

    digest: str = Field(description="Of the content; also the name of its folder.")
    model: str = Field(description="Digest of the model whose image tokens the rows hold.")
    family: str = Field(description="Prompt family of that model.")
    shards: tuple[ShardEntry, ...]
    rows: int = Field(ge=1)
    without_negative: int = Field(ge=0, description="Rows without a perturbed prompt.")
    tokens_kept: int = Field(ge=0, description="Rows whose image tokens came with them; the others were encoded.")
    rejected: dict[str, int] = Field(description="Rows that were not taken, by reason.")
    schema_version: int = SCHEMA_VERSION
    created_at: str

    @property
    def prefix(self) -> str:
        """The folder of its files below the storage root."""
        return folder_of(self.digest)


def folder_of(digest: str) -> str:
    """Return the folder of an import below the storage root."""
    return f"{IMPORTS}/{digest}"


def content_digest(shards: tuple[ShardEntry, ...]) -> str:
    """Return the digest of what the shards hold."""
    return digest_of(["imported pairs", SCHEMA_VERSION, [shard.sha256 for shard in shards]])


def publish_import(storage: Storage, found: ImportedPairs) -> None:
    """Write the manifest, after all files; of the same content imported twice, the later account counts."""
    storage.write(_key(found.digest), dump_checksummed(found))


def load_import(storage: Storage, digest: str) -> ImportedPairs:
    """Return the manifest of an import; its shards are compared with their digests when they are read.

    Raises:
        ConfigError: the storage holds no such import.
        DamagedArtifactError: the manifest is not what was written.
    """
    try:
        data = storage.read(_key(digest)) if _DIGEST.fullmatch(digest) else None
    except MissingObjectError:
        data = None
    if data is None:
        raise ConfigError(
            f"no such pairs were imported into {storage.uri()}",
            field=OPTION,
            value=digest,
            remedy="Run `ospo import-pairs` with this storage, and give the digest that it shows",
        )
    name = storage.uri(_key(digest))
    try:
        found = ImportedPairs.model_validate(load_checksummed(data, name))
        whole = found.digest == digest == content_digest(found.shards)
    except (DamagedArtifactError, ValidationError):
        whole = False
    if not whole:
        raise DamagedArtifactError("damaged: is not the manifest of this import", field=name, remedy="Import again")
    return found


def _key(digest: str) -> str:
    return f"{folder_of(digest)}/manifest.json"
