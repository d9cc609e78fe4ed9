"""Preference pairs with pictures and image tokens of the tiny Janus, published as a round leaves them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ospo_core.artifacts.manifest import Manifest, prefix_of
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.tables import write_shard
from ospo_core.schema import StageName, SubCategory, category_of, table_from_rows
from ospo_core.sharing.cards import Origin, Provenance
from tests.support.tiny_janus import CODES, IMAGE_SIZE, TOKENS

SUB_CATEGORIES = (SubCategory.COLOR_2, SubCategory.SPATIAL_2D, SubCategory.NON_SPATIAL)


def pixels(seed: int, height: int = IMAGE_SIZE, width: int = IMAGE_SIZE) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(seed: int, kind: str = "PNG", height: int = IMAGE_SIZE, width: int = IMAGE_SIZE) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels(seed, height, width)).save(buffer, format=kind)
    return buffer.getvalue()


def preference_pair(number: int) -> dict[str, Any]:
    """Return pair `number`; its pictures have the seeds `2 * number` and `2 * number + 1`."""
    generator = np.random.default_rng(number)
    sub_category = SUB_CATEGORIES[number % len(SUB_CATEGORIES)]
    return {
        "item_id": f"item-{number:04d}",
        "category": category_of(sub_category).value,
        "sub_category": sub_category.value,
        "prompt": f"a red circle above {number} stars",
        "negative_prompt": f"a blue circle above {number} stars",
        "negative_kind": "replace",
        "chosen_variant": 0,
        "chosen_side": "base",
        "rejected_variant": 1,
        "rejected_side": "negative",
        "chosen_tokens": generator.integers(0, CODES, TOKENS).tolist(),
        "rejected_tokens": generator.integers(0, CODES, TOKENS).tolist(),
        "chosen_image": {"bytes": encoded(2 * number), "path": f"{number}-chosen.png"},
        "rejected_image": {"bytes": encoded(2 * number + 1), "path": None},
        "chosen_answers": [{"question": "is there a red circle ?", "p_yes": 0.9, "p_no": 0.1}],
        "rejected_answers": [],
        "chosen_score": 0.8,
        "rejected_score": -0.5,
        "image_logprob_gap": 0.1,
        "text_logprob_gap": None,
        "rule": "v2",
        "chosen_mask": [0.25] * TOKENS if number % 2 else None,
        "rejected_mask": None,
    }


def publish_pairs(storage: Storage, sizes: Sequence[int] = (5, 4), **changes: Any) -> dict[StageName, Manifest]:
    """Write prompts and pairs in shards of these sizes; `changes` are columns that all pairs have."""
    numbers = iter(range(sum(sizes)))
    pairs = [[{**preference_pair(next(numbers)), **changes} for _ in range(size)] for size in sizes]
    shared = ("item_id", "category", "sub_category", "prompt")
    prompts = [[{**{name: row[name] for name in shared}, "concepts": [], "relations": []} for row in s] for s in pairs]
    return {
        StageName.PROMPTS: _publish(storage, StageName.PROMPTS, "prompts", prompts),
        StageName.PAIRS: _publish(storage, StageName.PAIRS, "pairs", pairs, drops={"no_chosen_candidate": 3}),
    }


def provenance(model: str = "0" * 64, **changes: Any) -> Provenance:
    origin = Origin(model, "/somewhere/secret/model")
    facts: dict[str, Any] = {"round": "abc123", "profile": "small", "seed": 3, "model": origin, "family": "shapes"}
    return Provenance(**{**facts, **changes})


def _publish(
    storage: Storage, stage: StageName, table: str, shards: Sequence[Sequence[Mapping[str, Any]]], **fields: Any
) -> Manifest:
    fingerprint = f"{list(StageName).index(stage) + 1:064x}"
    entries = tuple(
        write_shard(storage, f"{prefix_of(stage, fingerprint)}/part-{index:05d}.parquet", table_from_rows(table, rows))
        for index, rows in enumerate(shards)
    )
    rows = sum(entry.rows for entry in entries)
    items = rows + sum(fields.get("drops", {}).values())
    facts = {"version": 1, "rows": rows, "items_in": items, "ingredients": {"fields": {"selection": {"rule": "v2"}}}}
    return Manifest(stage=stage, fingerprint=fingerprint, shards=entries, **facts, **fields)
