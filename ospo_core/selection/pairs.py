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
from ospo_core.schema import TABLES
from ospo_core.selection.rules import NO_IMAGES, NOT_FINITE, RULES, Prompts
from ospo_core.selection.scoring import read_scores

_TEXTS = ("item_id", "category", "sub_category", "prompt", "negative_prompt")


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
    texts = pl.DataFrame(perturbations.select(["variant"])).with_row_index("row_text")
    texts = texts.with_columns(_items(perturbations, "perturbations", order))
    lists = texts.group_by("item", maintain_order=True).agg(
        pl.col("row_text").sort_by("variant"), pl.col("variant").sort().alias("variant_text")
    )
    rendered = pl.DataFrame(images.select(["variant", "side"])).with_row_index("image")
    rendered = rendered.with_columns(_items(images, "images", order))
    scored = read_scores(scores).with_row_index("row")
    numbers = scored.select(pl.exclude("item_id", "logprob_negatives", "about"), _items(scores, "scores", order))
    candidates = numbers.join(rendered, on=["item", "variant", "side"]).sort("item", "variant", "side")
    prompts = Prompts(candidates, lists, scored)
    _check(prompts, texts)
    prompts.need(prompts.images, NO_IMAGES)
    if not prompts.images["finite"].all():
        prompts.images = prompts.images.filter(pl.col("finite").all().over("item"))
    prompts.need(prompts.images, NOT_FINITE)
    return prompts


def _runs(table: pa.Table) -> tuple[list[str], NDArray[np.int32]]:
    """Return the prompt of each run of rows that share one, and the length of the run."""
    runs = pc.run_end_encode(table["item_id"].combine_chunks())
    return runs.values.to_pylist(), np.diff(runs.run_ends, prepend=0)


def _items(table: pa.Table, name: str, order: Mapping[str, int]) -> pl.Series:
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
    return pl.Series("item", np.repeat(places, rows))


def _check(prompts: Prompts, texts: pl.DataFrame) -> None:
    """Refuse images that cannot belong to their prompt.

    Raises:
        StageError: a variant without perturbed prompt, neither no nor all log-probabilities, or an image given twice.
    """
    places = prompts.images.select("item", "variant", "side")
    known = prompts.texts["row_text"].list.len()[prompts.images["item"]]
    given = prompts.scores["logprob_negatives"].list.len()[prompts.images["row"]]
    strangers = places.join(texts.select("item", "variant"), on=["item", "variant"], how="anti")
    misfits = places.filter(((known != given) & (given != 0)) | places.is_duplicated())
    if strangers.height or misfits.height:
        first = pl.concat([strangers, misfits]).sort("item", "variant", "side")
        raise StageError(
            "scores do not fit the perturbed prompts of their item",
            field="scores",
            value=first.select("variant", "side").row(0),
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
