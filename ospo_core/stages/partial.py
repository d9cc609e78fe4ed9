"""Recomputing chosen items of a shard: a condition picks them, and the rows of all others are kept."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from ospo_core.artifacts.manifest import load_manifest
from ospo_core.artifacts.tables import read_shard
from ospo_core.errors import ConfigError, StageError
from ospo_core.schema import TABLES, StageName
from ospo_core.stages.base import ShardResult, ShardSpec

if TYPE_CHECKING:
    from ospo_core.stages.run import StageRun

_SHOWN = 200

KEPT_ROWS = "kept_rows"
"""Name among a shard's counts of the rows that were kept; drops of the earlier result are not counted again."""


LONGEST_CONDITION = 2000
"""Characters of a condition. Polars parses and evaluates by recursion: some 10 000 terms overflow its stack."""

FUNCTIONS = frozenset(
    [
        "abs",
        "array_contains",
        "array_length",
        "char_length",
        "coalesce",
        "concat",
        "ends_with",
        "initcap",
        "left",
        "length",
        "lower",
        "ltrim",
        "nullif",
        "regexp_like",
        "reverse",
        "right",
        "round",
        "rtrim",
        "starts_with",
        "strpos",
        "substr",
        "trim",
        "upper",
    ]
)
"""Functions of SQL that a condition may call: without those that make Polars panic or take any amount of memory."""

_BEFORE_PARENTHESES = FUNCTIONS | {"and", "or", "not", "in", "like", "ilike", "between", "when", "then", "else", "case"}
_QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"")
_CALL = re.compile(r"([\w.\"]+)\s*\(")


def chosen_items(prompts: pa.Table, where: str) -> frozenset[str]:
    """Return the `item_id` of the prompts that satisfy a condition.

    Args:
        prompts: rows of the prompts table.
        where: SQL condition on its columns.

    Raises:
        ConfigError: it cannot be parsed, names an unknown column, or is not a condition.
    """
    problem = _problem(where)
    if not problem:
        try:
            return frozenset(pl.DataFrame(prompts).filter(pl.sql_expr(where))["item_id"].to_list())
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:  # a panic is no Exception
            problem = (str(error).splitlines() or [type(error).__name__])[0][:_SHOWN]
    raise ConfigError(
        f"is not a condition on the prompts table: {problem}",
        field="where",
        value=where if len(where) <= _SHOWN else f"{where[:_SHOWN]}...",
        remedy=f"Write SQL over {', '.join(prompts.column_names)}, e.g. \"category = 'layout'\"",
    )


def _problem(where: str) -> str:
    """Return why a condition must not reach Polars; empty if it may."""
    if len(where) > LONGEST_CONDITION:
        return f"it has {len(where)} characters, more than {LONGEST_CONDITION}"
    if not where.isprintable() and not where.replace("\n", "").replace("\t", "").isprintable():
        return "it has characters that cannot be printed"
    bare = _QUOTED.sub('""', where)
    if "--" in bare or "/*" in bare:
        return "it has a comment or two minus signs"
    called = sorted({name.lower() for name in _CALL.findall(bare)} - _BEFORE_PARENTHESES)
    return f"it calls {called[0]}; functions are {', '.join(sorted(FUNCTIONS))}" if called else ""


def run_chosen_items(run: StageRun, spec: ShardSpec) -> ShardResult:
    """Compute the chosen items of one shard and merge them with the kept rows, in the order of the prompts.

    Raises:
        StageError: the earlier result no longer exists, or has other shards.
        ConfigError: the condition cannot be used.
    """
    schema = TABLES[run.stage.table]
    earlier = _earlier_rows(run, spec.index).cast(schema)
    chosen = run.chosen(spec.index)
    kept = earlier.filter(pc.invert(pc.is_in(earlier["item_id"], pa.array(sorted(chosen), pa.string()))))
    made = run.stage.run_shard(run, spec) if chosen else ShardResult(table=schema.empty_table(), items_in=0)
    order = read_shard(run.storage, run.upstream[StageName.PROMPTS], spec.index, ["item_id"])["item_id"].to_pylist()
    return replace(
        made,
        table=_in_order(pa.concat_tables([kept, made.table]), order),
        items_in=made.items_in + kept.num_rows,
        counts={**made.counts, KEPT_ROWS: kept.num_rows},
    )


def _earlier_rows(run: StageRun, index: int) -> pa.Table:
    """Return the shard's rows in the result from which rows are kept."""
    of = run.attempt.of if run.attempt is not None else ""
    manifest = load_manifest(run.storage, run.stage.name, of, verify=False)
    if manifest is None or len(manifest.shards) <= index:
        raise StageError(
            "the result whose rows would be kept no longer exists, or has other shards",
            field=f"stage {run.stage.name}",
            value=of[:12],
            remedy="Recompute the whole stage",
        )
    return read_shard(run.storage, manifest, index)


def _in_order(rows: pa.Table, order: list[str]) -> pa.Table:
    """Sort rows by the position of their item in `order`; the rows of one item keep their order."""
    place = {item: number for number, item in enumerate(order)}
    ranks = np.asarray([place[item] for item in rows["item_id"].to_pylist()], dtype=np.int64)
    return rows.take(pa.array(np.argsort(ranks, kind="stable")))
