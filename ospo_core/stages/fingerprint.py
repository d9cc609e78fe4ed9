"""The identity of a stage's output (design, decision 3): the same ingredients give the same fingerprint anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ospo_core.artifacts.ids import digest_of
from ospo_core.artifacts.manifest import Manifest, ShardEntry, prefix_of
from ospo_core.config.sections import Section
from ospo_core.schema import SCHEMA_VERSION
from ospo_core.stages.base import Stage, StageContext


class Identity(Section):
    """A fingerprint, what it was made of, and where the output lies in the storage."""

    fingerprint: str
    ingredients: dict[str, Any]
    prefix: str


def content_of(manifest: Manifest) -> str:
    """Return what later stages see of a stage: the content of its tables, or what `extra["digest"]` says it made.

    Training makes a model; how many tokens a second it saw is in its table and must not change what follows.
    """
    return str(manifest.extra.get("digest") or manifest.digest)


def unpublished(ctx: StageContext, stage: Stage, done: Sequence[ShardEntry]) -> Manifest:
    """Return a manifest of units that are published one by one, so that their tables can be read like a stage's."""
    return Manifest(
        stage=stage.name,
        fingerprint=identify(ctx, stage).fingerprint,
        version=stage.version,
        shards=tuple(done),
        rows=sum(entry.rows for entry in done),
        items_in=0,
    )


def identify(ctx: StageContext, stage: Stage) -> Identity:
    """Return the identity of `stage` in `ctx`: name, versions, configuration, content of upstream, model, attempt.

    Upstream counts by the content of its tables, so that a stage computed anew with the same result changes nothing
    further down.
    """
    ingredients: dict[str, Any] = {
        "stage": stage.name.value,
        "version": stage.version,
        "schema_version": SCHEMA_VERSION,
        "fields": stage.fields(ctx.config),
        "upstream": {name.value: content_of(ctx.upstream[name]) for name in stage.upstream},
    }
    if stage.uses_model:
        ingredients["model"] = {"digest": ctx.model_digest, "family": ctx.config.model.family}
        ingredients["dtype"] = ctx.config.model.dtype
    if ctx.redo is not None:
        ingredients["redo"] = ctx.redo.model_dump(mode="json")
    fingerprint = digest_of(ingredients)
    return Identity(fingerprint=fingerprint, ingredients=ingredients, prefix=prefix_of(stage.name, fingerprint))
