"""Rows of a finished stage by place, their number in the table from 0; only the columns and rows asked for are read."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import polars as pl

from ospo_core.artifacts.checksummed_json import damaged
from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage, checked_key

PLACE = "place"
"""Name of the column with the places of rows."""
PAGE_ROWS = 24
"""Rows on one page."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Page:
    """One page of a list: its rows, its number from 1, and the number of rows of the whole list."""

    rows: Sequence[Row]
    number: int
    total: int

    @property
    def last(self) -> int:
        """The number of the last page, at least 1."""
        return max(1, -(-self.total // PAGE_ROWS))


def lazy_rows(storage: Storage, manifest: Manifest, shard: int | None = None) -> pl.LazyFrame:
    """Return the rows of a stage, or of one of its shards, with their places, as a lazy frame (see `collected`)."""
    chosen = range(len(manifest.shards)) if shard is None else [shard]
    addresses = [_address(storage, manifest, index) for index in chosen]
    if not addresses:
        return pl.LazyFrame(schema={PLACE: pl.UInt32, "item_id": pl.String})
    first = 0 if shard is None else _starts(manifest)[shard]
    return pl.scan_parquet(
        addresses,
        storage_options=storage.storage_options() or None,
        glob=False,
        row_index_name=PLACE,
        row_index_offset=first,
    )


def collected(manifest: Manifest, lazy: pl.LazyFrame) -> pl.DataFrame:
    """Run a query over rows of `manifest`.

    Raises:
        DamagedArtifactError: a shard is missing, or is not the table that the manifest says.
    """
    try:
        return lazy.collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise damaged(manifest.prefix, "a shard is missing or cannot be read") from error


def rows_at(
    storage: Storage, manifest: Manifest, places: Sequence[int], columns: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the rows at these places, in this order, with the columns asked for and the place."""
    found: dict[int, dict[str, Any]] = {}
    by_shard: dict[int, list[int]] = {}
    for place in places:
        by_shard.setdefault(shard_of(manifest, place), []).append(place)
    for shard, wanted in by_shard.items():
        lazy = lazy_rows(storage, manifest, shard).select(PLACE, *columns).filter(pl.col(PLACE).is_in(wanted))
        found |= {row[PLACE]: row for row in collected(manifest, lazy).iter_rows(named=True)}
    return [found[place] for place in places if place in found]


def shard_of(manifest: Manifest, place: int) -> int:
    """Return the number of the shard with the row at `place`, which must be in the table."""
    return bisect_right(_starts(manifest), place) - 1


def shard_named(manifest: Manifest, name: str) -> int | None:
    """Return the number of the shard with this name, or None: later stages name their shards as the prompts do."""
    return next((index for index, entry in enumerate(manifest.shards) if entry.name == name), None)


def page_of(places: Sequence[int], number: int) -> Sequence[int]:
    """Return the places on page `number` of a list."""
    return places[(number - 1) * PAGE_ROWS : number * PAGE_ROWS]


def contains(text: str, columns: Iterable[str]) -> pl.Expr:
    """Return the condition that one of the columns contains `text`, in any case."""
    wanted = text.lower()
    return pl.any_horizontal(
        pl.col(name).fill_null("").str.to_lowercase().str.contains(wanted, literal=True) for name in columns
    )


def _starts(manifest: Manifest) -> list[int]:
    """Return the place of the first row of every shard."""
    return [0, *accumulate(entry.rows for entry in manifest.shards)][:-1]


def _address(storage: Storage, manifest: Manifest, index: int) -> str:
    """Return the address of a shard, whose name may not lead out of its folder."""
    key = checked_key(manifest.shard_key(index))
    if key.rpartition("/")[0] != manifest.prefix:
        raise damaged(manifest.prefix, "a shard lies outside its folder")
    return storage.uri(key)
