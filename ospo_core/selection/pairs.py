"""From the tables of perturbations, images and scores to the table of pairs.

Pictures and tokens stay in their Arrow table until the pairs are known; the rules see row numbers in their place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ospo_core.config.sections import SelectionConfig
from ospo_core.errors import StageError
from ospo_core.schema import TABLES, Side
from ospo_core.selection.rules import NO_IMAGES, NOT_FINITE, RULES, Prompts
from ospo_core.selection.scoring import read_scores

_TEXTS = ("item_id", "category", "sub_category", "prompt", "negative_prompt")
_VARIANT_BITS = 32
"""Bits of a variant in the numbers that stand for a prompt's variant or image, where they take the place of strings."""


@dataclass(frozen=True)
class PairTables:
    """Outcome of the pair rules on many prompts.

    Args:
        table: one row per pair, `TABLES["pairs"]`; masks are empty until they are computed.
        drops: reason (a key of `DROP_REASONS`) to number of prompts.
        items: prompts seen; always the rows of `table` plus the sum of `drops`.
    """

    table: pa.Table
    drops: Counter[str]
    items: int


def build_pairs(perturbations: pa.Table, images: pa.Table, scores: pa.Table, config: SelectionConfig) -> PairTables:
    """Choose the pair of every prompt that has perturbations, or count why there is none.

    The three tables must list their prompts in the same order, with each prompt's rows together, as the stages write
    them; prompts may be missing from `images` and `scores`. Only images that were both rendered and scored take part.

    Raises:
        StageError: rows are out of order or do not fit each other.
    """
    prompts = _read(perturbations, images, scores)
    items = prompts.texts.height
    rule = config.rule if config.filtering else "unfiltered"
    pairs = RULES[rule](prompts, config).sort("item")
    if pairs.height + prompts.drops.total() != items:
        raise StageError(
            "pairs and drops do not add up to the prompts",
            field=f"selection rule {rule}",
            value=(pairs.height, dict(prompts.drops), items),
            remedy="Return one row per item from the rule, and name every drop with Prompts.need",
        )
    return PairTables(_table(pairs, rule, perturbations, images, scores), prompts.drops, items)


def _read(perturbations: pa.Table, images: pa.Table, scores: pa.Table) -> Prompts:
    """Bring together what belongs to each prompt, and drop the prompts that no rule can use.

    Raises:
        StageError: rows are out of order or do not fit each other.
    """
    order = {prompt: place for place, prompt in enumerate(dict.fromkeys(_runs(perturbations)[0]))}
    given = _variants(perturbations, _items(perturbations, "perturbations", order))
    by_variant = np.argsort(given)
    sizes = np.bincount(given >> _VARIANT_BITS, minlength=len(order))
    variants = perturbations["variant"].to_numpy()
    texts = pl.DataFrame([_lists("row_text", by_variant, sizes), _lists("variant_text", variants[by_variant], sizes)])
    rendered = pl.DataFrame({"place": _places(images, "images", order)}).with_row_index("image")
    scored = read_scores(scores).with_row_index("row")
    numbers = scored.select(pl.exclude("item_id", "logprob_negatives", "about"), place=_places(scores, "scores", order))
    candidates = numbers.join(rendered, on="place").sort("place")
    places = candidates["place"].to_numpy()
    prompts = Prompts(candidates.with_columns(item=places >> (_VARIANT_BITS + 1)).drop("place"), texts, scored)
    _check(prompts, known=np.isin(places >> 1, given), again=np.diff(places, prepend=-1) == 0)
    prompts.need(prompts.images, NO_IMAGES)
    if not prompts.images["finite"].all():
        prompts.images = prompts.images.filter(pl.col("finite").all().over("item"))
    prompts.need(prompts.images, NOT_FINITE)
    return prompts


def _runs(table: pa.Table) -> tuple[list[str], NDArray[np.int32]]:
    """Return the prompt of each run of rows that share one, and the length of the run."""
    runs = pc.run_end_encode(table["item_id"].combine_chunks())
    return runs.values.to_pylist(), np.diff(runs.run_ends, prepend=0)


def _items(table: pa.Table, name: str, order: Mapping[str, int]) -> NDArray[np.int64]:
    """Return for each row the place of its prompt in `order`.

    Raises:
        StageError: a prompt has no perturbations, comes too late, or has its rows in several places.
    """
    prompts, rows = _runs(table)
    places = np.array([order.get(prompt, -1) for prompt in prompts], dtype=np.int64)
    wrong = np.flatnonzero(np.diff(places, prepend=-1) <= 0)
    if len(wrong):
        raise StageError(
            "rows belong to a prompt without perturbations, or are out of order",
            field=f"table {name}, item_id",
            value=prompts[wrong[0]],
            remedy="Give all tables in the order of the perturbations table",
        )
    return np.repeat(places, rows)


def _variants(table: pa.Table, items: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return one number per row that sorts by prompt, then variant."""
    return (items << _VARIANT_BITS) + table["variant"].to_numpy()


def _places(table: pa.Table, name: str, order: Mapping[str, int]) -> NDArray[np.int64]:
    """Return one number per image that sorts by prompt, then variant, then base side before negative side.

    Raises:
        StageError: as `_items`.
    """
    negative = pc.equal(table["side"], Side.NEGATIVE.value).to_numpy()
    return 2 * _variants(table, _items(table, name, order)) + negative


def _lists(name: str, values: NDArray[np.int64], sizes: NDArray[np.int64]) -> pl.Series:
    """Return consecutive values as lists of these sizes."""
    return pl.Series(name, pa.LargeListArray.from_arrays(np.cumsum([0, *sizes]), values))


def _check(prompts: Prompts, known: NDArray[np.bool_], again: NDArray[np.bool_]) -> None:
    """Refuse images that cannot belong to their prompt.

    Args:
        prompts: with every candidate in `images`.
        known: for each image, whether its prompt has a perturbed prompt of its variant.
        again: for each image, whether it is the same as the one before.

    Raises:
        StageError: a variant without perturbed prompt, an image given twice, or neither no nor all log-probabilities.
    """
    wanted = prompts.texts["row_text"].list.len().to_numpy()[prompts.images["item"]]
    given = prompts.scores["logprob_negatives"].list.len().to_numpy()[prompts.images["row"]]
    wrong = np.flatnonzero(~known | again | ((given != wanted) & (given != 0)))
    if len(wrong):
        raise StageError(
            "scores do not fit the perturbed prompts of their item",
            field="scores",
            value=prompts.images.select("variant", "side").row(int(wrong[0])),
            remedy="Run the scores stage again with --refresh scores",
        )


def _table(pairs: pl.DataFrame, rule: str, perturbations: pa.Table, images: pa.Table, scores: pa.Table) -> pa.Table:
    """Return the table of pairs: take by row number what did not pass through the rules."""
    texts = perturbations.select([*_TEXTS, "kind"]).take(pairs["row_text"].to_arrow())
    columns: dict[str, pa.Array | pa.ChunkedArray] = {
        **{name: texts[name] for name in _TEXTS},
        "negative_kind": texts["kind"],
        "image_logprob_gap": (pairs["logprob"] - pairs["logprob_rejected"]).to_arrow(),
        "text_logprob_gap": (pairs["logprob"] - pairs["logprob_text"]).to_arrow(),
        "rule": pa.array([rule] * pairs.height, pa.string()),
    }
    for place, suffix in (("chosen", ""), ("rejected", "_rejected")):
        picture = images.select(["tokens", "image"]).take(pairs[f"image{suffix}"].to_arrow())
        columns |= {
            **{f"{place}_{name}": pairs[f"{name}{suffix}"].to_arrow() for name in ("variant", "side", "score")},
            **{f"{place}_{name}": picture[name] for name in ("tokens", "image")},
            f"{place}_answers": scores["answers"].take(pairs[f"row{suffix}"].to_arrow()),
            f"{place}_mask": pa.nulls(pairs.height),
        }
    schema = TABLES["pairs"]
    return pa.Table.from_arrays([columns[field.name].cast(field.type) for field in schema], schema=schema)
