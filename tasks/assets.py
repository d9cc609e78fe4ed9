"""Prefect assets: what a stage publishes, its sources, and metadata.

The key of an asset is the address of its folder, so that people who read the lineage find it. A storage refuses
addresses with credentials, so no key contains any.
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
from ospo_core.models.hub import HUB_PREFIX
from ospo_core.schema import StageName
from ospo_core.stages import StageRun
from ospo_core.stages.model_ref import MERGED, MODEL_DIGEST, STORED, ModelRef, trained_model

MADE_BY = "ospo"
REFERENCED = "prefect.asset.referenced"
_ODD = str.maketrans(dict.fromkeys(RESTRICTED_ASSET_CHARACTERS, "_"))


def asset_key(address: str) -> str:
    """Return an address of the storage as the key of an asset: `s3://bucket/...`, or `file:///folder/...`.

    Characters that Prefect refuses become `_`; the beginning of an address that is too long becomes a digest.
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
    if model.source.startswith(HUB_PREFIX):
        return asset_key(f"hub://{model.source.removeprefix(HUB_PREFIX)}")
    if model.source.startswith("embedded:"):
        return asset_key(f"embedded://{model.source.removeprefix('embedded:')}/{model.digest}")
    return asset_key(model.source)


def sources_of(run: StageRun) -> list[Asset]:
    """Return the sources of a stage: the results that it reads, and the model."""
    keys = [asset_key(run.storage.uri(run.upstream[name].prefix)) for name in run.stage.reads]
    if run.stage.uses_model:
        keys.append(model_key(run.storage, run.model))
    if StageName.TRAINING in run.stage.reads:
        keys.append(model_key(run.storage, trained_model(run.upstream[StageName.TRAINING])))
    if run.judge is not None and run.judge.model is not None:
        keys.append(model_key(run.storage, run.judge.model))
    return [Asset(key=key) for key in dict.fromkeys(keys)]


def results_of(run: StageRun, done: Sequence[ShardEntry]) -> list[Asset]:
    """Return what a stage makes: its result, and the trained model; `done` are the entries of all its shards."""
    models = [str(entry.extra[MERGED]) for entry in done if MERGED in entry.extra]
    found = []
    for key, what in [(run.prefix, run.stage.name.value), *((model, "trained model") for model in models)]:
        address, name = run.storage.uri(key), f"{what} of {run.config.name}, seed {run.config.seed}"
        properties = AssetProperties(name=name, description=f"Stored at {address}")
        found.append(Asset(key=asset_key(address), properties=properties))
    return found


def only_named_sources() -> None:
    """Restrict the sources of this task run's assets to those that it names itself.

    Prefect counts every result among the parameters as a source, and a stage run mentions all earlier stages.
    """
    context = AssetContext.get()
    if context is not None:
        context.upstream_assets.clear()


def describe_results(run: StageRun, manifest: Manifest) -> None:
    """Attach the figures of the manifest to the assets that this task run materialises, if any."""
    context = AssetContext.get()
    expected = {asset.key for asset in context.downstream_assets} if context is not None else set()
    for key, metadata in _metadata(run, manifest).items():
        if key in expected:
            add_asset_metadata(key, metadata)


def refer_to(run: StageRun, manifest: Manifest) -> None:
    """Record that finished results were found and are reused."""
    for key in _metadata(run, manifest):
        emit_event(REFERENCED, resource=AssetContext.asset_as_resource(Asset(key=key)))


def _metadata(run: StageRun, manifest: Manifest) -> dict[str, dict[str, Any]]:
    """Return the metadata of a stage's results by asset key."""
    storage = run.storage
    common = {"stage": manifest.stage.value, "fingerprint": manifest.fingerprint, "round": run.round_id}
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
