"""What the three text stages share: the fields of their fingerprints, and the message when nothing can be used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ospo_core.artifacts.manifest import Manifest
from ospo_core.config import RoundConfig
from ospo_core.engines import TextEngine
from ospo_core.errors import StageError
from ospo_core.prompts.failures import describe_drops
from ospo_core.prompts.families import family
from ospo_core.stages.base import options_of

RAW_ANSWERS = "raw_answers"
"""Name among a shard's and a manifest's extra facts: one raw answer by reason for dropping it."""

_CHANGES_TEXT = ("kind", "dtype", "max_model_len", "served_model", "structured_output")
"""Options of a text engine that change its text; memory limits and addresses do not."""


def text_fields(config: RoundConfig) -> dict[str, Any]:
    """Return what every text stage has in its fields: the engine's options, the seed, and the version of the texts."""
    version = family(config.model.family).version
    engine = {name: value for name, value in options_of(config.engine).items() if name in _CHANGES_TEXT}
    return {"engine": engine, "seed": config.seed, **({"texts": version} if version > 1 else {})}


def text_extra(engine: TextEngine, raw: Mapping[str, str]) -> dict[str, Any]:
    """Return the facts that a shard records: about the engine, and one raw answer by reason for dropping it."""
    return {**engine.facts(), **({RAW_ANSWERS: dict(raw)} if raw else {})}


def raw_answers(manifest: Manifest) -> dict[str, str]:
    """Return one raw answer by reason, over all shards of a result."""
    raw: dict[str, str] = {}
    for entry in manifest.shards:
        raw = {**entry.extra.get(RAW_ANSWERS, {}), **raw}
    return raw


def check_written(manifest: Manifest) -> Manifest:
    """Return the manifest with the raw answers of all shards in `extra`.

    Raises:
        StageError: there was something to do, and no answer of the model could be used.
    """
    raw = raw_answers(manifest)
    if manifest.items_in and not manifest.rows:
        raise StageError(
            f"no answer of the model can be used; {describe_drops(manifest.drops, raw)}",
            field=f"stage {manifest.stage}",
            value=0,
            remedy=f"Raise {manifest.stage}.attempts or {manifest.stage}.max_tokens, or use another model",
        )
    return manifest.model_copy(update={"extra": {**manifest.extra, **({RAW_ANSWERS: raw} if raw else {})}})
