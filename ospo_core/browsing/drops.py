"""What a stage dropped: the count of every reason, and an example where one can be shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.browsing.rows import collected, lazy_rows, shard_named
from ospo_core.config.sections import SelectionConfig
from ospo_core.errors import StageError
from ospo_core.schema import TABLES, StageName
from ospo_core.selection.pairs import build_pairs
from ospo_core.stages.text import RAW_ANSWERS

_TRIED = 32
"""Dropped prompts of a round that are paired again, to find an example of each reason."""
_SHARDS_TRIED = 4
_INPUTS = (StageName.PERTURBATIONS, StageName.IMAGES, StageName.SCORES)


@dataclass(frozen=True)
class Drop:
    """A reason, how many items it dropped, one of them in words, and its id if the item has a page."""

    stage: StageName
    reason: str
    count: int
    example: str = ""
    item_id: str = ""


def find_drops(storage: Storage, manifests: Mapping[StageName, Manifest], config: Mapping[str, Any]) -> list[Drop]:
    """Return all reasons of a round, by stage and then the most frequent first; `config` is the round's, as recorded.

    Text stages recorded a raw answer for each reason. For the pairs, a few dropped prompts are paired once more.
    """
    found: list[Drop] = []
    for stage, manifest in manifests.items():
        raw = manifest.extra.get(RAW_ANSWERS, {})
        items = _unpaired(storage, manifests, config) if stage is StageName.PAIRS and manifest.drops else {}
        for reason, count in sorted(manifest.drops.items(), key=lambda one: (-one[1], one[0])):
            item, text = items.get(reason, ("", str(raw.get(reason, ""))))
            found.append(Drop(stage, reason, count, text, item))
    return found


def _unpaired(
    storage: Storage, manifests: Mapping[StageName, Manifest], config: Mapping[str, Any]
) -> dict[str, tuple[str, str]]:
    """Return (item id, prompt) by reason of some prompts that have no pair."""
    pairs, selection = manifests[StageName.PAIRS], SelectionConfig.model_validate(config.get("selection", {}))
    found: dict[str, tuple[str, str]] = {}
    if any(stage not in manifests for stage in (StageName.PROMPTS, *_INPUTS)):
        return found
    for index, entry in enumerate(pairs.shards[:_SHARDS_TRIED]):
        if set(pairs.drops) <= set(found) or not entry.drops:
            continue
        paired = collected(pairs, lazy_rows(storage, pairs, index).select("item_id"))["item_id"].to_list()
        prompts = _shard(storage, manifests[StageName.PROMPTS], entry.name, ["item_id", "prompt"])
        inputs = [_shard(storage, manifests[stage], entry.name) for stage in _INPUTS]
        if prompts is None or None in inputs:
            continue
        lost = [row for row in prompts.to_pylist() if row["item_id"] not in set(paired)][:_TRIED]
        for row in lost:
            found.setdefault(_reason(inputs, row["item_id"], selection), (row["item_id"], row["prompt"]))
    return found


def _reason(inputs: Sequence[pa.Table], item_id: str, selection: SelectionConfig) -> str:
    """Return why one prompt has no pair, by pairing it alone; empty if that cannot be told."""
    perturbations, images, scores = (table.filter(pc.equal(table["item_id"], item_id)) for table in inputs)
    if not perturbations.num_rows:
        return "no_perturbation"
    try:
        return next(iter(build_pairs(perturbations, images, scores, selection).drops), "")
    except StageError:
        return ""


def _shard(storage: Storage, manifest: Manifest, name: str, columns: list[str] | None = None) -> pa.Table | None:
    """Return the shard with this name without pictures and tokens, which are empty; None if there is none."""
    index = shard_named(manifest, name)
    if index is None:
        return None
    schema = TABLES[manifest.stage.value]
    heavy = [] if columns else [one for one in ("tokens", "image") if one in schema.names]
    light = collected(
        manifest,
        lazy_rows(storage, manifest, index).select(columns or [one for one in schema.names if one not in heavy]),
    ).to_arrow()
    for one in heavy:
        light = light.append_column(schema.field(one), pa.nulls(light.num_rows, schema.field(one).type))
    return light.select(columns or schema.names).cast(pa.schema([schema.field(one) for one in columns or schema.names]))
