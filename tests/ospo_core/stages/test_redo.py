"""Doing over: a new attempt beside the old one, of all items or of some, and what it may not change."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ospo_core.artifacts.manifest import Manifest, ShardEntry
from ospo_core.artifacts.tables import read_table
from ospo_core.config import RoundConfig
from ospo_core.errors import ConfigError, StageError
from ospo_core.rounds.attempts import next_redo, record_result, recorded_redo, with_redo
from ospo_core.schema import StageName, table_from_rows
from ospo_core.stages.base import ShardResult, ShardSpec, StageContext, one_to_one
from ospo_core.stages.partial import KEPT_ROWS
from ospo_core.stages.redo import Redo, RedoRequest, chosen_items
from ospo_core.stages.resources import Resources
from ospo_core.stages.runner import run_stage
from tests.support.fake_stages import NumbersStage
from tests.support.rounds import context, small_round

FIRST = RedoRequest()


class PairsOfNumbersStage(NumbersStage):
    """Two rows an item, which say with which guidance they were made; drops one of item 7."""

    name = StageName.IMAGES
    table = "prompts"
    upstream = (StageName.PROMPTS,)
    by_item = True

    def fields(self, config: RoundConfig) -> dict[str, Any]:
        return {"guidance": config.images.guidance}

    def shards(self, ctx: StageContext, done: Sequence[ShardEntry]) -> list[ShardSpec]:
        return one_to_one(ctx.upstream[StageName.PROMPTS], done)

    def run_shard(self, ctx: StageContext, spec: ShardSpec) -> ShardResult:
        self.trouble(spec)
        rows = ctx.rows(StageName.PROMPTS, spec.index)
        self.computed.update(row["item_id"] for row in rows)
        made = [{**row, "prompt": f"{side} {ctx.config.images.guidance:g}"} for row in rows for side in ("a", "b")]
        kept = [row for row in made if (row["item_id"], row["prompt"][0]) != ("item1", "b")]
        drops = {"odd": len(made) - len(kept)} if len(kept) < len(made) else {}
        return ShardResult(table_from_rows("prompts", kept), items_in=len(made), drops=drops)


def with_numbers(root: Path, **sections: Any) -> tuple[StageContext, Manifest]:
    ctx = context(small_round(root, **sections), Resources())
    numbers = run_stage(ctx, NumbersStage())
    return context(ctx.config, Resources(), {StageName.PROMPTS: numbers}), numbers


def rows_of(ctx: StageContext, manifest: Manifest) -> list[tuple[str, str]]:
    return [(row["item_id"], row["prompt"]) for row in read_table(ctx.storage, manifest).to_pylist()]


def test_condition_chooses_items_by_the_columns_of_the_prompts_table() -> None:
    _, prompts = "", table_from_rows("prompts", [row("x1", "layout"), row("x2", "attribute")])
    assert chosen_items(prompts, "category == 'layout'") == {"x1"}
    assert chosen_items(prompts, "category = 'layout' OR prompt LIKE '%x2%'") == {"x1", "x2"}
    assert chosen_items(prompts, "sub_category = 'none'") == frozenset()


def row(item: str, category: str) -> dict[str, Any]:
    fields = {"item_id": item, "category": category, "sub_category": "color_1", "prompt": f"prompt of {item}"}
    return {**fields, "concepts": [], "relations": []}


@pytest.mark.parametrize("where", ["nope = 1", "category ===", "prompt", "1; drop table x", "seed("])
def test_condition_that_cannot_be_used_names_itself_and_the_columns(where: str) -> None:
    prompts: pa.Table = table_from_rows("prompts", [row("x1", "layout")])
    with pytest.raises(ConfigError, match=r"where: is not a condition.*item_id, category") as caught:
        chosen_items(prompts, where)
    assert caught.value.value == where


def test_some_items_are_done_over_and_the_rows_of_the_others_stay(tmp_path: Path) -> None:
    ctx, _ = with_numbers(tmp_path, images={"guidance": 1.0})
    stage = PairsOfNumbersStage()
    before = run_stage(ctx, stage)
    request = RedoRequest(where="item_id IN ('item0', 'item1')", overrides=("images.guidance=2",))
    part = with_redo(ctx, next_redo(ctx, stage, None, request))
    stage.computed.clear()
    after = run_stage(part, stage)
    assert set(stage.computed) == {"item0", "item1"}
    expected = [("item0", "a 2"), ("item0", "b 2"), ("item1", "a 2"), ("item2", "a 1"), ("item2", "b 1")]
    assert rows_of(ctx, after) == expected
    assert (after.drops, after.counts[KEPT_ROWS], after.items_in) == ({"odd": 1}, 2, 6)
    assert after.rows + sum(after.drops.values()) == after.items_in
    assert run_stage(ctx, stage) == before and after.prefix != before.prefix


def test_same_options_give_the_same_content_in_the_order_of_the_prompts(tmp_path: Path) -> None:
    ctx, _ = with_numbers(tmp_path)
    stage = PairsOfNumbersStage()
    before = run_stage(ctx, stage)
    part = with_redo(ctx, next_redo(ctx, stage, None, RedoRequest(where="item_id = 'item1'")))
    assert run_stage(part, stage).digest == before.digest


def test_attempts_count_up_and_a_killed_one_is_gone_on_with(tmp_path: Path) -> None:
    ctx, _ = with_numbers(tmp_path)
    stage = PairsOfNumbersStage()
    run_stage(ctx, stage)
    first = next_redo(ctx, stage, None, FIRST)
    assert first == Redo(attempt=1)

    def stop_at_third(spec: ShardSpec) -> None:
        if spec.index == 2:
            raise KeyboardInterrupt

    stage.trouble = stop_at_third
    with pytest.raises(KeyboardInterrupt):
        run_stage(with_redo(ctx, first), stage)
    assert next_redo(ctx, stage, None, FIRST) == first
    resumed = PairsOfNumbersStage()
    run_stage(with_redo(ctx, first), resumed)
    assert set(resumed.computed) == {"item2"}
    assert next_redo(ctx, stage, first, FIRST).attempt == 2
    assert next_redo(ctx, stage, None, FIRST).attempt == 2, "also where the record was lost"


def test_damaged_leftover_of_an_attempt_is_left_alone(tmp_path: Path) -> None:
    ctx, _ = with_numbers(tmp_path)
    stage = PairsOfNumbersStage()
    made = run_stage(with_redo(ctx, next_redo(ctx, stage, None, FIRST)), stage)
    ctx.storage.delete(f"{made.prefix}/manifest.json")
    ctx.storage.write(f"{made.prefix}/{made.shards[1].file}", b"other bytes")
    assert next_redo(ctx, stage, None, FIRST).attempt == 2


def test_record_says_which_attempt_counts_until_the_inputs_change(tmp_path: Path) -> None:
    ctx, numbers = with_numbers(tmp_path)
    stage = PairsOfNumbersStage()
    assert recorded_redo(ctx, stage, "r") is None
    redo = next_redo(ctx, stage, None, FIRST)
    record_result(ctx, stage, "r", redo)
    assert recorded_redo(ctx, stage, "r") == redo
    assert recorded_redo(ctx, stage, "other") is None and recorded_redo(ctx, stage, "") is None
    other_inputs = numbers.model_copy(update={"extra": {"digest": "other"}})
    changed = context(ctx.config, Resources(), {StageName.PROMPTS: other_inputs})
    assert recorded_redo(changed, stage, "r") is None
    record_result(ctx, stage, "r", None)
    assert recorded_redo(ctx, stage, "r") is None


def test_request_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    ctx, _ = with_numbers(tmp_path)
    with pytest.raises(ConfigError, match=r"cannot be done over for some items only.*images, scores, pairs"):
        next_redo(ctx, NumbersStage(), None, RedoRequest(where="item_id = 'item0'"))
    stage = PairsOfNumbersStage()
    with pytest.raises(StageError, match="stage images: is not there yet"):
        next_redo(ctx, stage, None, RedoRequest(where="item_id = 'item0'"))
    run_stage(ctx, stage)
    for change in ("training.steps=7", "seed=3", "storage.root=elsewhere", "model.dtype=bfloat16"):
        with pytest.raises(ConfigError, match="also changes what other stages make"):
            next_redo(ctx, stage, None, RedoRequest(overrides=(change,)))
    assert next_redo(ctx, stage, None, RedoRequest(overrides=("images.guidance=3",))).attempt == 1


def test_kept_rows_of_a_result_that_is_gone_cannot_be_kept(tmp_path: Path) -> None:
    ctx, _ = with_numbers(tmp_path)
    stage = PairsOfNumbersStage()
    before = run_stage(ctx, stage)
    part = with_redo(ctx, next_redo(ctx, stage, None, RedoRequest(where="item_id = 'item1'")))
    ctx.storage.delete_folder(before.prefix)
    with pytest.raises(StageError, match="gone"):
        run_stage(part, stage)
