"""One prompt followed through a round: perturbations, questions, pictures with their answers, and its pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.browsing.library import missing
from ospo_core.browsing.rows import PLACE, collected, lazy_rows, shard_named, shard_of
from ospo_core.report.formats import Change, changed_words
from ospo_core.schema import StageName

_NOT_SHOWN = {"tokens", "image", "chosen_tokens", "rejected_tokens", "chosen_image", "rejected_image"}
_NOT_SHOWN |= {"chosen_mask", "rejected_mask"}
_LONGEST_ID = 64

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Variant:
    """A hard negative of the prompt, what it changes, and the two pictures drawn for it (rows of `images`).

    `scores` has the row of `scores` by side; a picture that was not drawn or scored is missing.
    """

    row: Row
    changes: list[Change]
    pictures: Mapping[str, Row]
    scores: Mapping[str, Row]


@dataclass(frozen=True)
class Item:
    """A prompt and all rows of a round that belong to it, without tokens and pictures; each row has its place."""

    prompt: Row
    variants: list[Variant] = field(default_factory=list)
    questions: Sequence[Row] = field(default_factory=list)
    pair: Row | None = None


def find_item(storage: Storage, manifests: Mapping[StageName, Manifest], item_id: str) -> Item:
    """Return a prompt with everything that a round made of it.

    Raises:
        MissingObjectError: the round has no such prompt.
        DamagedArtifactError: a shard is missing or cannot be read.
    """
    prompts = manifests.get(StageName.PROMPTS)
    known = prompts is not None and len(item_id) <= _LONGEST_ID
    places = _rows(storage, prompts, None, item_id, only=("item_id",)) if prompts is not None and known else []
    if prompts is None or not places:
        raise missing("item", item_id[:_LONGEST_ID], "Choose one from the gallery of a round")
    shard = shard_of(prompts, places[0][PLACE])
    name = prompts.shards[shard].name

    def of(stage: StageName) -> list[dict[str, Any]]:
        manifest = manifests.get(stage)
        return _rows(storage, manifest, shard_named(manifest, name), item_id) if manifest is not None else []

    (prompt,) = of(StageName.PROMPTS)[:1]
    pictures, scores = of(StageName.IMAGES), of(StageName.SCORES)
    variants = [
        Variant(
            row=row,
            changes=changed_words(row["prompt"], row["negative_prompt"]),
            pictures={one["side"]: one for one in pictures if one["variant"] == row["variant"]},
            scores={one["side"]: one for one in scores if one["variant"] == row["variant"]},
        )
        for row in of(StageName.PERTURBATIONS)
    ]
    return Item(prompt, variants, of(StageName.QUESTIONS), next(iter(of(StageName.PAIRS)), None))


def _rows(
    storage: Storage, manifest: Manifest, shard: int | None, item_id: str, only: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    """Return the rows of an item, from one shard or from all; `only` limits the columns."""
    if not manifest.shards:
        return []
    lazy = lazy_rows(storage, manifest, shard).filter(pl.col("item_id") == item_id)
    shown = lazy.select(PLACE, *only) if only else lazy.drop(_NOT_SHOWN, strict=False)
    return collected(manifest, shown).to_dicts()
