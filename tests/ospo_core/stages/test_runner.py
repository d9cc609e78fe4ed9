"""Shards are resumed, manifests are found, and what is computed anew with the same result changes nothing."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ospo_core.artifacts.storage import Storage
from ospo_core.errors import DamagedArtifactError
from ospo_core.rounds.attempts import next_redo, with_redo
from ospo_core.schema import StageName
from ospo_core.stages.fingerprint import content_of, identify
from ospo_core.stages.redo import RedoRequest
from ospo_core.stages.resources import Resources
from ospo_core.stages.runner import run_stage, stage_manifest
from tests.support.fake_stages import SHARDS, NumbersStage, ShardSpec, SquaresStage
from tests.support.rounds import context, small_round


def test_stage_is_done_once_and_then_found(tmp_path: Path) -> None:
    stage, ctx = NumbersStage(), context(small_round(tmp_path), Resources())
    assert stage_manifest(ctx, stage) is None
    made = run_stage(ctx, stage)
    assert run_stage(ctx, stage) == made == stage_manifest(ctx, stage)
    assert set(stage.computed.values()) == {1} and len(stage.computed) == SHARDS


def test_manifest_adds_up_rows_drops_and_counts(tmp_path: Path) -> None:
    made = run_stage(context(small_round(tmp_path), Resources()), NumbersStage())
    assert (made.rows, made.items_in, made.drops, made.counts) == (3, 6, {"odd": 3}, {"calls": 6})
    assert made.rows + sum(made.drops.values()) == made.items_in
    assert made.ingredients["fields"] == {"seed": 0}


def test_manifest_adds_up_the_processor_time_of_its_shards(tmp_path: Path) -> None:
    def work(spec: ShardSpec) -> None:
        began = time.process_time()
        while time.process_time() - began < 0.05:
            pass

    made = run_stage(context(small_round(tmp_path), Resources()), NumbersStage(work))
    assert made.cpu_seconds == pytest.approx(sum(shard.cpu_seconds for shard in made.shards))
    assert made.cpu_seconds >= SHARDS * 0.04


def test_interrupted_stage_resumes_at_the_first_missing_shard(tmp_path: Path) -> None:
    def stop_at_second(spec: ShardSpec) -> None:
        if spec.index == 1:
            raise KeyboardInterrupt

    whole = run_stage(context(small_round(tmp_path / "whole"), Resources()), NumbersStage())
    ctx, stage = context(small_round(tmp_path / "broken"), Resources()), NumbersStage(stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        run_stage(ctx, stage)
    assert stage_manifest(ctx, stage) is None
    resumed = NumbersStage()
    assert run_stage(ctx, resumed).digest == whole.digest
    assert "part-00000" not in resumed.computed


def test_fingerprint_follows_configuration_model_and_upstream(tmp_path: Path) -> None:
    first = context(small_round(tmp_path), Resources())
    other_seed = context(small_round(tmp_path, seed=1), Resources())
    stage = NumbersStage()
    assert identify(first, stage).fingerprint != identify(other_seed, stage).fingerprint
    moved = context(small_round(tmp_path, storage={"root": str(tmp_path / "elsewhere")}), Resources())
    assert identify(first, stage) == identify(moved, stage)
    trained = first.model.model_copy(update={"digest": "1" * 64})
    assert identify(context(first.config, Resources(), model=trained), stage) != identify(first, stage)
    upstream = [{StageName.PROMPTS: run_stage(ctx, stage)} for ctx in (first, other_seed)]
    squares = [identify(context(first.config, Resources(), manifests), SquaresStage()) for manifests in upstream]
    assert squares[0].fingerprint != squares[1].fingerprint


def test_refreshed_stage_with_the_same_content_leaves_later_stages_cached(tmp_path: Path) -> None:
    config, numbers, squares = small_round(tmp_path), NumbersStage(), SquaresStage()
    ctx = context(config, Resources())
    before = run_stage(ctx, numbers)
    later = context(config, Resources(), {StageName.PROMPTS: before})
    assert run_stage(later, squares).rows == 3
    after = run_stage(with_redo(ctx, next_redo(ctx, numbers, None, RedoRequest())), numbers)
    assert (after.digest, numbers.computed["part-00000"]) == (before.digest, 2)
    assert after.prefix != before.prefix and run_stage(ctx, numbers) == before
    assert stage_manifest(context(config, Resources(), {StageName.PROMPTS: after}), squares) is not None


def test_content_is_the_digest_that_a_stage_names(tmp_path: Path) -> None:
    made = run_stage(context(small_round(tmp_path), Resources()), NumbersStage())
    assert content_of(made) == made.digest
    assert content_of(made.model_copy(update={"extra": {"digest": "model"}})) == "model"


@pytest.mark.parametrize("suffix", [".parquet", ".json", "manifest.json"])
def test_damage_is_named_and_mended_by_a_refresh(tmp_path: Path, suffix: str) -> None:
    ctx, stage = context(small_round(tmp_path), Resources()), NumbersStage()
    made = run_stage(ctx, stage)
    if suffix == ".json":
        ctx.storage.delete(f"{made.prefix}/manifest.json")
    key = next(key for key in ctx.storage.list(made.prefix) if key.endswith(suffix))
    data = bytearray(ctx.storage.read(key))
    data[len(data) // 2] ^= 1
    ctx.storage.write(key, bytes(data))
    with pytest.raises(DamagedArtifactError, match=Path(key).name):
        run_stage(ctx, stage)
    again = run_stage(with_redo(ctx, next_redo(ctx, stage, None, RedoRequest())), stage)
    assert again.digest == made.digest and bytes(data) == ctx.storage.read(key)


def test_two_runs_at_once_agree_on_one_manifest(tmp_path: Path) -> None:
    config = small_round(tmp_path)
    first, second = (run_stage(context(config, Resources()), NumbersStage()) for _ in range(2))
    assert first == second
    assert len(Storage(config.storage.root).list(first.prefix)) == 2 * SHARDS + 1
