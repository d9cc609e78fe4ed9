"""One prompt followed through a round: perturbations, questions, pictures with their answers, and its pair."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
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
_KEPT = 4
"""Rounds whose ids of prompts stay in memory."""

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


class Items:
    """The prompts of a storage; the ids of the last few rounds are kept, since results never change."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._kept: OrderedDict[str, pl.DataFrame] = OrderedDict()
        self._lock = Lock()

    def find(self, manifests: Mapping[StageName, Manifest], item_id: str) -> Item:
        """Return a prompt with everything that a round made of it; see `find_item`."""
        prompts = manifests.get(StageName.PROMPTS)
        if prompts is None:
            return find_item(self._storage, manifests, item_id)
        with self._lock:
            ids = self._kept.get(prompts.fingerprint)
        if ids is None:
            ids = _ids(self._storage, prompts)
        with self._lock:
            self._kept[prompts.fingerprint] = ids
            self._kept.move_to_end(prompts.fingerprint)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return find_item(self._storage, manifests, item_id, ids)


def find_item(
    storage: Storage, manifests: Mapping[StageName, Manifest], item_id: str, ids: pl.DataFrame | None = None
) -> Item:
    """Return a prompt with everything that a round made of it.

    Args:
        storage: holds the tables.
        manifests: of the stages of the round.
        item_id: of the prompt.
        ids: columns `item_id` and `place` of all prompts; None reads them.

    Raises:
        MissingObjectError: the round has no such prompt.
        DamagedArtifactError: a shard is missing or cannot be read.
    """
    prompts = manifests.get(StageName.PROMPTS)
    places: list[int] = []
    if prompts is not None and len(item_id) <= _LONGEST_ID:
        known = ids if ids is not None else _ids(storage, prompts)
        places = known.filter(pl.col("item_id") == item_id)[PLACE].to_list()
    if prompts is None or not places:
        raise missing("item", item_id[:_LONGEST_ID], "Choose one from the gallery of a round")
    shard = shard_of(prompts, places[0])
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


def _ids(storage: Storage, prompts: Manifest) -> pl.DataFrame:
    """Return the id and the place of every prompt."""
    return collected(prompts, lazy_rows(storage, prompts).select(PLACE, "item_id"))


def _rows(storage: Storage, manifest: Manifest, shard: int | None, item_id: str) -> list[dict[str, Any]]:
    """Return the rows of an item, from one shard or from all."""
    if not manifest.shards:
        return []
    lazy = lazy_rows(storage, manifest, shard).filter(pl.col("item_id") == item_id)
    return collected(manifest, lazy.drop(_NOT_SHOWN, strict=False)).to_dicts()
