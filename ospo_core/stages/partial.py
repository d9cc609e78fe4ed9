"""One shard of a stage of which only some items are done over; the others keep the rows of an earlier result."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ospo_core.artifacts.manifest import load_manifest
from ospo_core.artifacts.tables import read_shard
from ospo_core.errors import StageError
from ospo_core.schema import TABLES, StageName
from ospo_core.stages.base import ShardResult, ShardSpec, Stage, StageContext

KEPT_ROWS = "kept_rows"
"""Name among a shard's counts of the rows that were not done over. What the earlier result dropped is counted there."""


def run_part(ctx: StageContext, stage: Stage, spec: ShardSpec) -> ShardResult:
    """Compute the chosen items of one shard and put them among the rows of the others, in the order of the prompts.

    Raises:
        StageError: the earlier result is gone, or its shards are cut otherwise.
        ConfigError: the condition cannot be used.
    """
    earlier = _earlier_rows(ctx, stage, spec.index).cast(TABLES[stage.table])
    chosen = ctx.chosen(spec.index)
    kept = earlier.filter(pc.invert(pc.is_in(earlier["item_id"], pa.array(sorted(chosen), pa.string()))))
    nothing = ShardResult(table=TABLES[stage.table].empty_table(), items_in=0)
    made = stage.run_shard(ctx, spec) if chosen else nothing
    order = read_shard(ctx.storage, ctx.upstream[StageName.PROMPTS], spec.index, ["item_id"])["item_id"].to_pylist()
    return replace(
        made,
        table=_in_order(pa.concat_tables([kept, made.table]), order),
        items_in=made.items_in + kept.num_rows,
        counts={**made.counts, KEPT_ROWS: kept.num_rows},
    )


def _earlier_rows(ctx: StageContext, stage: Stage, index: int) -> pa.Table:
    """Return the rows of the shard in the result that is done over."""
    of = ctx.redo.of if ctx.redo is not None else ""
    manifest = load_manifest(ctx.storage, stage.name, of, verify=False)
    if manifest is None or len(manifest.shards) <= index:
        raise StageError(
            "the result whose rows were to be kept is gone, or is cut into other shards",
            field=f"stage {stage.name}",
            value=of[:12],
            remedy="Do the whole stage over",
        )
    return read_shard(ctx.storage, manifest, index)


def _in_order(rows: pa.Table, order: list[str]) -> pa.Table:
    """Sort rows by where their item comes in `order`; rows of one item keep their order."""
    place = {item: number for number, item in enumerate(order)}
    ranks = np.asarray([place[item] for item in rows["item_id"].to_pylist()], dtype=np.int64)
    return rows.take(pa.array(np.argsort(ranks, kind="stable")))
