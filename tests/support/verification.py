"""What is wrong with the published result of a stage: damaged, missing or unnamed files."""

from __future__ import annotations

from pathlib import Path

from ospo_core.artifacts.manifest import Manifest, load_manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.tables import load_shard_entry
from ospo_core.errors import OspoError


def damage(storage: Storage, manifest: Manifest) -> list[str]:
    """Return what does not verify in a stage: its manifest, its rows or its entries."""
    try:
        load_manifest(storage, manifest.stage, manifest.fingerprint)
        for key in entries(storage, manifest):
            load_shard_entry(storage, manifest.prefix, Path(key).stem)
    except OspoError as error:
        return [str(error)]
    return []


def unnamed(storage: Storage, manifest: Manifest) -> list[str]:
    """Return the Parquet files of a stage that neither its manifest nor an entry names."""
    named = {entry.file for entry in manifest.shards}
    for key in entries(storage, manifest):
        found = load_shard_entry(storage, manifest.prefix, Path(key).stem)
        named |= {found.file} if found else set()
    files = [key for key in storage.list(manifest.prefix) if key.endswith(".parquet")]
    return [f"nothing names {key}" for key in files if Path(key).name not in named]


def entries(storage: Storage, manifest: Manifest) -> list[str]:
    """Return the keys of a stage's shard entries."""
    keys = [key for key in storage.list(manifest.prefix) if key.count("/") == 2 and key.endswith(".json")]
    return [key for key in keys if not key.endswith("/manifest.json")]
