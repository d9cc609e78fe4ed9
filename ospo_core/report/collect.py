"""Reads what the report shows from a round's tables; pictures are loaded only for the rows that are shown."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ospo_core.artifacts.ids import derive_seed
from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.tables import read_table, select
from ospo_core.report.formats import Change, changed_words
from ospo_core.report.pictures import Picture, embed
from ospo_core.schema import CHILD, PARENT, TABLES

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Question:
    """A yes/no question, and the model's p(yes) in [0, 1] on the chosen and on the rejected picture."""

    text: str
    chosen: float | None
    rejected: float | None


@dataclass(frozen=True)
class PairExample:
    """One preference pair as the report shows it; `row` holds the plain columns of the table `pairs`."""

    row: Row
    chosen: Picture
    rejected: Picture
    changes: list[Change]
    questions: list[Question]


@dataclass(frozen=True)
class Comparison:
    """Two pictures of one prompt and seed, before and after training, with their verdicts."""

    prompt: str
    sub_category: str
    before: Picture
    after: Picture
    before_right: bool
    after_right: bool


@dataclass(frozen=True)
class ComparisonGroup:
    """Pictures with the same change of verdict (`improved`, ...): their number, and a few random examples."""

    name: str
    count: int
    examples: list[Comparison]


GROUPS: dict[tuple[bool, bool], str] = {
    (False, True): "improved",
    (True, False): "worsened",
    (True, True): "right both times",
    (False, False): "wrong both times",
}
"""(right before, right after) to name of the group."""


def pair_examples(
    storage: Storage, manifest: Manifest, seed: int, count: int, show: Callable[[bytes, str], Picture] = embed
) -> list[PairExample]:
    """Return `count` random pairs, from as many sub-categories as possible.

    The seed chooses them, so that nobody picks them by hand; `show` turns encoded bytes and a name into a picture.
    """
    keys = read_table(storage, manifest, columns=["item_id", "sub_category"]).to_pylist()
    chosen = _one_of_each(keys, derive_seed("report", "pairs", seed), count)
    shown = [name for name in TABLES["pairs"].names if not name.endswith(("_tokens", "_mask"))]
    frame = select(storage, manifest, shown, pl.col("item_id").is_in(chosen))
    rows = {row["item_id"]: row for row in frame.iter_rows(named=True)}
    return [
        PairExample(
            row={key: value for key, value in row.items() if not key.endswith(("_image", "_answers"))},
            chosen=show(row["chosen_image"]["bytes"], f"chosen image of {row['item_id']}"),
            rejected=show(row["rejected_image"]["bytes"], f"rejected image of {row['item_id']}"),
            changes=changed_words(row["prompt"], row["negative_prompt"]),
            questions=_questions(row["chosen_answers"] or [], row["rejected_answers"] or []),
        )
        for row in (rows[item] for item in chosen)
    ]


def scores_by(storage: Storage, manifest: Manifest, label: str, score: str) -> dict[Any, NDArray[np.float64]]:
    """Return the finite values of column `score` by the value of column `label`; rows without a label are omitted."""
    kept = pl.col(label).is_not_null() & pl.col(score).is_finite()
    frame = select(storage, manifest, [label, score], kept)
    return {name: part[score].to_numpy() for (name,), part in frame.group_by(label, maintain_order=True)}


def pair_scores(storage: Storage, manifest: Manifest) -> dict[str, NDArray[np.float64]]:
    """Return the scores S in [-1, 1] of the chosen and of the rejected pictures."""
    frame = select(storage, manifest, ["chosen_score", "rejected_score"])
    return {side: frame[f"{side}_score"].to_numpy() for side in ("chosen", "rejected")}


def training_series(storage: Storage, manifest: Manifest) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return the steps and values of every training metric by name; values that are not finite are omitted."""
    frame = select(storage, manifest, ["step", "value", "name"], pl.col("value").is_finite())
    groups = frame.cast({"step": pl.Float64}).sort("step", "value").group_by("name", maintain_order=True)
    return {name: (part["step"].to_numpy(), part["value"].to_numpy()) for (name,), part in groups}


def comparisons(storage: Storage, manifest: Manifest, column: str, seed: int, count: int) -> list[ComparisonGroup]:
    """Return the four groups of pictures of the same prompt and seed, with up to `count` random examples each.

    `column` is the verdict to compare, `oracle_correct` or `vqa_correct`; `seed` chooses the examples.
    """
    keys = select(storage, manifest, [*_PICTURE, "model", column])
    before, after = (keys.filter(pl.col("model") == label) for label in (PARENT, CHILD))
    joined = before.join(after, on=_PICTURE, suffix="_after").sort(_PICTURE)
    groups: dict[str, list[Row]] = {name: [] for name in GROUPS.values()}
    for row in joined.iter_rows(named=True):
        groups[GROUPS[bool(row[column]), bool(row[f"{column}_after"])]].append(row)
    chosen = {
        name: random.Random(derive_seed("report", name, seed)).sample(members, min(count, len(members)))
        for name, members in groups.items()
    }
    items = [row["item_id"] for rows in chosen.values() for row in rows]
    columns = [*_PICTURE, "model", "prompt", "sub_category", "image", column]
    shown = select(storage, manifest, columns, pl.col("item_id").is_in(items))
    pictures = {_identity(row, row["model"]): row for row in shown.iter_rows(named=True)}
    return [
        ComparisonGroup(name, len(groups[name]), [_comparison(row, pictures, column) for row in rows])
        for name, rows in chosen.items()
    ]


_PICTURE = ["item_id", "sample", "guidance"]


def _identity(row: Row, model: str) -> tuple[Any, ...]:
    return (*(row[name] for name in _PICTURE), model)


def _one_of_each(keys: Iterable[Row], seed: int, count: int) -> list[str]:
    """Return up to `count` item ids: shuffled with the seed, then one of each sub-category in turn."""
    shuffled = sorted(keys, key=lambda row: str(row["item_id"]))
    random.Random(seed).shuffle(shuffled)
    turns: dict[str, int] = defaultdict(int)
    ranked: list[tuple[int, int, str]] = []
    for position, row in enumerate(shuffled):
        ranked.append((turns[row["sub_category"]], position, row["item_id"]))
        turns[row["sub_category"]] += 1
    return [item for _, _, item in sorted(ranked)[:count]]


def _questions(chosen: Sequence[Row], rejected: Sequence[Row]) -> list[Question]:
    """Return the answers on both pictures side by side, by question, in the order in which they were asked."""
    asked = list(dict.fromkeys(answer["question"] for answer in [*chosen, *rejected]))
    yes, no = ({answer["question"]: answer["p_yes"] for answer in answers} for answers in (chosen, rejected))
    return [Question(text, yes.get(text), no.get(text)) for text in asked]


def _comparison(key: Row, pictures: Mapping[tuple[Any, ...], Row], column: str) -> Comparison:
    before, after = pictures[_identity(key, PARENT)], pictures[_identity(key, CHILD)]
    return Comparison(
        prompt=before["prompt"],
        sub_category=before["sub_category"],
        before=embed(before["image"]["bytes"], f"picture of {key['item_id']} before"),
        after=embed(after["image"]["bytes"], f"picture of {key['item_id']} after"),
        before_right=bool(before[column]),
        after_right=bool(after[column]),
    )
