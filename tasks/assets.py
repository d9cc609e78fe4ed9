"""Prefect assets: what a stage publishes, what it was made from, and what is known of it.

The key of an asset is the address of its folder, so that it is found again by whoever reads the lineage. A storage
refuses addresses that carry credentials, so that no key has any.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from prefect.assets import Asset, AssetProperties, add_asset_metadata
from prefect.context import AssetContext
from prefect.events import emit_event
from prefect.types.names import MAX_ASSET_KEY_LENGTH, RESTRICTED_ASSET_CHARACTERS

from ospo_core.artifacts.manifest import Manifest, ShardEntry
from ospo_core.artifacts.storage import Storage
from ospo_core.config import RoundConfig
from ospo_core.schema import StageName
from ospo_core.stages.fingerprint import identify
from ospo_core.stages.model_ref import STORED, ModelRef
from ospo_core.stages.training import MERGED, MODEL_DIGEST, trained_model
from tasks.jobs import StageJob, storage_of

MADE_BY = "ospo"
REFERENCED = "prefect.asset.referenced"
_ODD = str.maketrans(dict.fromkeys(RESTRICTED_ASSET_CHARACTERS, "_"))


def asset_key(address: str) -> str:
    """Return an address of the storage as the key of an asset: `s3://bucket/...`, or `file:///folder/...`.

    Characters that Prefect refuses become `_`; of an address that is too long the first part becomes a digest.
    """
    uri = address if "://" in address else f"file://{address}"
    uri = uri.translate(_ODD)
    if len(uri) <= MAX_ASSET_KEY_LENGTH:
        return uri
    scheme, _, path = uri.partition("://")
    kept = path[-(MAX_ASSET_KEY_LENGTH // 2) :]
    return f"{scheme}://{hashlib.sha256(path.encode()).hexdigest()}/{kept}"


def model_key(storage: Storage, model: ModelRef) -> str:
    """Return the key of a model: of its folder, or of the name and digest of an embedded one."""
    if model.source.startswith(STORED):
        return asset_key(storage.uri(model.source.removeprefix(STORED)))
    if model.source.startswith("embedded:"):
        return asset_key(f"embedded://{model.source.removeprefix('embedded:')}/{model.digest}")
    return asset_key(model.source)


def sources_of(job: StageJob) -> list[Asset]:
    """Return what a stage is made from: the results that it reads, and the model."""
    storage, stage = storage_of(job.config), job.implementation()
    keys = [asset_key(storage.uri(job.upstream[name].prefix)) for name in stage.upstream]
    if stage.uses_model:
        keys.append(model_key(storage, job.model))
    if StageName.TRAINING in stage.upstream:
        keys.append(model_key(storage, trained_model(job.upstream[StageName.TRAINING])))
    return [Asset(key=key) for key in dict.fromkeys(keys)]


def results_of(job: StageJob, done: Sequence[ShardEntry]) -> list[Asset]:
    """Return what a stage makes: its result, and the trained model.

    Args:
        job: the stage.
        done: entries of all its units.
    """
    storage, config = storage_of(job.config), job.config
    made = [_described(storage.uri(identify(job.context(), job.implementation()).prefix), job.stage.value, config)]
    models = [str(entry.extra[MERGED]) for entry in done if MERGED in entry.extra]
    return [*made, *(_described(storage.uri(key), "trained model", config) for key in models)]


def only_named_sources() -> None:
    """Leave to this task run's assets only the sources that it names itself.

    Prefect takes every result that the parameters mention for a source, and a job mentions all stages before it.
    """
    context = AssetContext.get()
    if context is not None:
        context.upstream_assets.clear()


def describe_results(job: StageJob, manifest: Manifest) -> None:
    """Say of the results that this task run materialises what the manifest knows; without such results do nothing."""
    context = AssetContext.get()
    expected = {asset.key for asset in context.downstream_assets} if context is not None else set()
    for key, metadata in _metadata(job, manifest).items():
        if key in expected:
            add_asset_metadata(key, metadata)


def refer_to(job: StageJob, manifest: Manifest) -> None:
    """Record that results which were found finished are used again."""
    for key in _metadata(job, manifest):
        emit_event(REFERENCED, resource=AssetContext.asset_as_resource(Asset(key=key)))


def _described(address: str, what: str, config: RoundConfig) -> Asset:
    name = f"{what} of {config.name}, seed {config.seed}"
    return Asset(key=asset_key(address), properties=AssetProperties(name=name, description=f"Lies at {address}"))


def _metadata(job: StageJob, manifest: Manifest) -> dict[str, dict[str, Any]]:
    """Return what is known of a stage's results, by their keys."""
    storage = storage_of(job.config)
    common = {"stage": manifest.stage.value, "fingerprint": manifest.fingerprint, "round": job.round}
    known = {
        **common,
        "rows": manifest.rows,
        "items_in": manifest.items_in,
        "drops": manifest.drops,
        "digest": manifest.digest,
        "seconds": round(manifest.seconds, 3),
    }
    found = {asset_key(storage.uri(manifest.prefix)): known}
    if manifest.stage is StageName.TRAINING and MODEL_DIGEST in manifest.extra:
        key = model_key(storage, trained_model(manifest))
        parent = {"digest": manifest.extra[MODEL_DIGEST], "parent": manifest.extra["parent_digest"]}
        found[key] = {**common, **parent, "counts": manifest.counts}
    return found
