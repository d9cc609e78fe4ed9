"""Parent and child side by side: the pictures of the same held-out prompt and seed, with their verdicts."""

from __future__ import annotations

from typing import Any, Literal

import polars as pl
from pydantic import Field

from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.browsing.rows import PLACE, Page, collected, contains, lazy_rows, page_of, rows_at
from ospo_core.config.sections import Section
from ospo_core.evaluation.benchmarks.comparison import SUMMARY
from ospo_core.report.formats import held_out_figures
from ospo_core.schema import CHILD, PARENT, Category

Outcome = Literal["improved", "worsened", "right", "wrong"]

OUTCOMES: dict[Outcome, tuple[bool, bool]] = {
    "improved": (False, True),
    "worsened": (True, False),
    "right": (True, True),
    "wrong": (False, False),
}
"""What became of a prompt: (right before, right after)."""

DRAWN = ["item_id", "sample", "guidance"]
"""The columns that say which two pictures belong together."""

_SHOWN = (*DRAWN, "category", "sub_category", "prompt", "answers", "vqa_score")


class ComparisonQuery(Section):
    """Which comparisons to show; `text` is part of the prompt, in any case, `page` counts from 1."""

    category: Category | None = None
    outcome: Outcome | None = None
    text: str = Field("", max_length=200)
    page: int = Field(1, ge=1, le=10**7)


def verdict_column(manifest: Manifest) -> str:
    """Return the column of the verdicts on held-out pictures: the oracle's, or the judge's."""
    return "oracle_correct" if held_out_figures(manifest.extra).get("metric") == "oracle" else "vqa_correct"


def compares(manifest: Manifest) -> bool:
    """Return whether an evaluation has pictures of a parent or a child; the scores of a benchmark have not."""
    return bool(manifest.shards) and SUMMARY not in manifest.extra


def paired_places(storage: Storage, manifest: Manifest, *columns: str) -> pl.DataFrame:
    """Return one row per pair of pictures: `DRAWN`, and `place` and `columns` of the parent, of the child `..._after`.

    An evaluation of one model alone has none, nor has a benchmark.
    """
    if not compares(manifest):
        return pl.DataFrame(schema={**dict.fromkeys(DRAWN, pl.Null), PLACE: pl.UInt32, f"{PLACE}_after": pl.UInt32})
    rows = collected(manifest, lazy_rows(storage, manifest).select(PLACE, "model", *DRAWN, *columns))
    before, after = (rows.filter(pl.col("model") == label).drop("model") for label in (PARENT, CHILD))
    return before.join(after, on=DRAWN, suffix="_after").sort(DRAWN)


def find_comparisons(storage: Storage, manifest: Manifest, query: ComparisonQuery) -> Page:
    """Return a page of comparisons; each row has `before` and `after`, rows with `place` and `right`.

    Raises:
        DamagedArtifactError: a shard is missing or cannot be read.
    """
    if not compares(manifest):
        return Page([], query.page, 0)
    column = verdict_column(manifest)
    frame = paired_places(storage, manifest, "category", "prompt", column)
    if query.category is not None:
        frame = frame.filter(pl.col("category") == query.category.value)
    if query.outcome is not None:
        before, after = OUTCOMES[query.outcome]
        frame = frame.filter(pl.col(column) == before, pl.col(f"{column}_after") == after)
    if query.text:
        frame = frame.filter(contains(query.text, ["prompt"]))
    shown: list[dict[str, Any]] = []
    places = [frame[PLACE].to_list(), frame[f"{PLACE}_after"].to_list()]
    sides = [rows_at(storage, manifest, page_of(one, query.page), (*_SHOWN, column)) for one in places]
    for before_row, after_row in zip(*sides, strict=True):
        both = [{**row, "right": row[column]} for row in (before_row, after_row)]
        shown.append({**before_row, "before": both[0], "after": both[1]})
    return Page(shown, query.page, frame.height)
