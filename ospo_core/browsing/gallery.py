"""The gallery of pairs: filters, orders, pages. A query reads the few columns that it needs, and never a picture."""

from __future__ import annotations

from typing import Any, Literal

import polars as pl
from pydantic import Field

from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.browsing.rows import PLACE, Page, collected, contains, lazy_rows, page_of, rows_at
from ospo_core.config.sections import Section
from ospo_core.schema import Category, PerturbationKind, SubCategory

Order = Literal["stored", "narrow", "wide", "doubt"]

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


def find_pairs(storage: Storage, manifest: Manifest, query: PairQuery) -> Page:
    """Return a page of pairs with their places.

    Raises:
        DamagedArtifactError: a shard is missing or cannot be read.
    """
    lazy = lazy_rows(storage, manifest)
    if not manifest.shards:
        return Page([], query.page, 0)
    for condition in _conditions(query):
        lazy = lazy.filter(condition)
    order = _ORDERS.get(query.order)
    lazy = lazy.select(PLACE) if order is None else lazy.select(PLACE, key=order)
    frame = collected(manifest, lazy)
    if order is not None:
        frame = frame.sort("key", PLACE, nulls_last=True)
    rows = rows_at(storage, manifest, page_of(frame[PLACE].to_list(), query.page), _SHOWN)
    return Page(rows, query.page, frame.height)


def sub_categories(storage: Storage, manifest: Manifest) -> dict[str, int]:
    """Return the number of pairs of every sub-category, the most frequent first."""
    if not manifest.shards:
        return {}
    counts = lazy_rows(storage, manifest).group_by("sub_category").len().sort("len", "sub_category", descending=True)
    return dict(collected(manifest, counts).iter_rows())


def _conditions(query: PairQuery) -> list[Any]:
    columns = {"category": query.category, "sub_category": query.sub_category, "negative_kind": query.kind}
    found: list[Any] = [pl.col(name) == wanted.value for name, wanted in columns.items() if wanted is not None]
    if query.least is not None:
        found.append(pl.col("chosen_score") >= query.least)
    if query.most is not None:
        found.append(pl.col("chosen_score") <= query.most)
    return [*found, contains(query.text, ("prompt", "negative_prompt"))] if query.text else found
