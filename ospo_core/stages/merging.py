"""Merging the slices of stage `prompts`: which rows are accepted. Memory holds their positions, not the rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.tables import read_shard
from ospo_core.prompts.filters import SURPLUS, Deduplicator
from ospo_core.schema import TABLES, SubCategory

Quotas = Mapping[SubCategory, int]


@dataclass
class Merged:
    """The accepted prompts of all slices, without duplicates, in the order of waves, sub-categories and slices.

    Attributes:
        slices: digests of the slices.
        texts: contains every accepted prompt; it is only queried.
        accepted: for each sub-category, which rows of which slice.
        counts: how many prompts of each sub-category are accepted.
        drops: number of dropped prompts by reason.
        spent: sub-categories with a slice that used up its attempts.
    """

    slices: tuple[str, ...]
    texts: Deduplicator
    accepted: dict[SubCategory, list[tuple[int, list[int]]]] = field(default_factory=dict)
    counts: Counter[SubCategory] = field(default_factory=Counter)
    drops: Counter[str] = field(default_factory=Counter)
    spent: set[SubCategory] = field(default_factory=set)

    def missing(self, quotas: Quotas) -> dict[SubCategory, int]:
        """Return how many prompts each sub-category still lacks; complete ones are omitted."""
        lacking = {name: quota - self.counts[name] for name, quota in quotas.items()}
        return {name: count for name, count in lacking.items() if count > 0}


def merge(storage: Storage, written: Manifest, quotas: Quotas, similarity: float) -> Merged:
    """Merge slices in their order; of equal prompts the first is kept, whatever its sub-category.

    Args:
        storage: where the slices are.
        written: the slices.
        quotas: prompts wanted; prompts beyond a quota are dropped as surplus.
        similarity: threshold at which two prompts count as duplicates.

    Raises:
        DamagedArtifactError: a slice is not what was published.
    """
    merged = Merged(tuple(entry.sha256 for entry in written.shards), Deduplicator(similarity))
    for index, entry in enumerate(written.shards):
        name = SubCategory(entry.extra["sub_category"])
        if entry.extra["short"] > 0:
            merged.spent.add(name)
        room, kept = quotas[name] - merged.counts[name], list[int]()
        for row, prompt in enumerate(read_shard(storage, written, index, ["prompt"])["prompt"].to_pylist()):
            reason = merged.texts(prompt) if len(kept) < room else SURPLUS
            if reason:
                merged.drops[reason] += 1
            else:
                kept.append(row)
        merged.accepted.setdefault(name, []).append((index, kept))
        merged.counts[name] += len(kept)
    return merged


def accepted_shards(storage: Storage, written: Manifest, merged: Merged, size: int) -> Iterator[pa.Table]:
    """Yield the accepted rows by sub-category, cut into tables of `size` rows; slices are read one at a time."""
    waiting: list[pa.Table] = []
    for index, rows in (place for name in SubCategory for place in merged.accepted.get(name, ())):
        written_rows = read_shard(storage, written, index).cast(TABLES["prompts"])
        waiting.append(written_rows.take(pa.array(rows, pa.int64())))
        while sum(table.num_rows for table in waiting) >= size:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, size)
            waiting = [whole.slice(size)]
    rest = pa.concat_tables(waiting) if waiting else None
    if rest is not None and rest.num_rows:
        yield rest
