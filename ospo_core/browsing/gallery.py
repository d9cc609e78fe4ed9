"""The gallery of pairs: filters, orders, pages. A query reads the few columns that it needs, and never a picture.

A filter or an order opens every shard. Results never change, so what one found is kept: its other pages, and those
without filter and order, open the shards of their own rows only. That bounds the requests of a page on object storage.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from threading import Lock
from typing import Any, Literal, TypeVar

import polars as pl
from pydantic import Field

from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.browsing.rows import PLACE, Page, collected, contains, lazy_rows, page_of, rows_at
from ospo_core.config.sections import Section
from ospo_core.schema import Category, PerturbationKind, SubCategory

Order = Literal["stored", "narrow", "wide", "doubt"]

_Found = TypeVar("_Found")
_KEPT = 16
"""Lists of places, and counts, that stay in memory."""

_SHOWN = (
    "item_id",
    "category",
    "sub_category",
    "prompt",
    "negative_prompt",
    "negative_kind",
    "chosen_score",
    "rejected_score",
    "image_logprob_gap",
)
_GAP = pl.col("chosen_score") - pl.col("rejected_score")
_DOUBT = (
    pl.col("chosen_answers")
    .list.eval((pl.element().struct.field("p_yes") - pl.element().struct.field("p_no")).abs())
    .list.min()
)
_ORDERS: dict[Order, pl.Expr] = {"narrow": _GAP, "wide": -_GAP, "doubt": _DOUBT}


class PairQuery(Section):
    """Which pairs to show, and in which order.

    Args:
        category, sub_category, kind: of the prompt, and of its hard negative; None: any.
        least, most: limits of the chosen picture's score S.
        text: part of the prompt or of its negative, in any case.
        order: as stored, by the gap between the scores (`narrow` or `wide` first), or by `doubt`: first those of whose
            chosen picture the judge was least certain in one answer, |p(yes) - p(no)|.
        page: from 1.
    """

    category: Category | None = None
    sub_category: SubCategory | None = None
    kind: PerturbationKind | None = None
    least: float | None = Field(None, ge=-1, le=1)
    most: float | None = Field(None, ge=-1, le=1)
    text: str = Field("", max_length=200)
    order: Order = "stored"
    page: int = Field(1, ge=1, le=10**7)


class Gallery:
    """The pairs of a storage in pages; what the last queries found is kept."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = Lock()

    def page(self, manifest: Manifest, query: PairQuery) -> Page:
        """Return a page of pairs with their places.

        Raises:
            DamagedArtifactError: a shard is missing or cannot be read.
        """
        key = (manifest.fingerprint, query.model_copy(update={"page": 1}))
        places = self._known(key, lambda: places_of(self._storage, manifest, query))
        return _page(self._storage, manifest, places, query.page)

    def sub_categories(self, manifest: Manifest) -> dict[str, int]:
        """Return the number of pairs of every sub-category, the most frequent first."""
        return self._known(manifest.fingerprint, lambda: sub_categories(self._storage, manifest))

    def _known(self, key: Hashable, find: Callable[[], _Found]) -> _Found:
        """Return what was found under this key, or find it now."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                known: _Found = self._kept[key]
                return known
        found = find()
        with self._lock:
            self._kept[key] = found
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return found


def places_of(storage: Storage, manifest: Manifest, query: PairQuery) -> Sequence[int]:
    """Return the places of all pairs that a query asks for, in its order; its page does not matter.

    Raises:
        DamagedArtifactError: a shard is missing or cannot be read.
    """
    conditions, order = _conditions(query), _ORDERS.get(query.order)
    if not manifest.shards or (not conditions and order is None):
        return range(sum(entry.rows for entry in manifest.shards))
    lazy = lazy_rows(storage, manifest)
    for condition in conditions:
        lazy = lazy.filter(condition)
    lazy = lazy.select(PLACE) if order is None else lazy.select(PLACE, key=order)
    frame = collected(manifest, lazy)
    if order is not None:
        frame = frame.sort("key", PLACE, nulls_last=True)
    return array("I", frame[PLACE].to_list())


def sub_categories(storage: Storage, manifest: Manifest) -> dict[str, int]:
    """Return the number of pairs of every sub-category, the most frequent first."""
    if not manifest.shards:
        return {}
    counts = lazy_rows(storage, manifest).group_by("sub_category").len().sort("len", "sub_category", descending=True)
    return dict(collected(manifest, counts).iter_rows())


def _page(storage: Storage, manifest: Manifest, places: Sequence[int], number: int) -> Page:
    return Page(rows_at(storage, manifest, page_of(places, number), _SHOWN), number, len(places))


def _conditions(query: PairQuery) -> list[Any]:
    columns = {"category": query.category, "sub_category": query.sub_category, "negative_kind": query.kind}
    found: list[Any] = [pl.col(name) == wanted.value for name, wanted in columns.items() if wanted is not None]
    if query.least is not None:
        found.append(pl.col("chosen_score") >= query.least)
    if query.most is not None:
        found.append(pl.col("chosen_score") <= query.most)
    return [*found, contains(query.text, ("prompt", "negative_prompt"))] if query.text else found
