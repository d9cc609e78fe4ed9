"""Prompts: slices, waves that fill up what duplicates leave open, item shards, and clear refusals."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from ospo_core.artifacts.tables import iter_rows, read_shard
from ospo_core.errors import ConfigError, StageError
from ospo_core.schema import SubCategory
from ospo_core.stages.prompts import PromptsStage, excluded_prompts
from tests.support.rounds import ScriptedResources, finished, small_round, text_run


def test_quotas_are_met_and_cut_into_item_shards(tmp_path: Path) -> None:
    run = text_run(PromptsStage(), small_round(tmp_path), ScriptedResources())
    made = finished(run)
    rows = list(iter_rows(run.storage, made))
    assert Counter(row["sub_category"] for row in rows) == {"color_2": 5, "spatial_2d": 3}
    assert [shard.name for shard in made.shards] == ["part-00000", "part-00001"]
    assert [shard.rows for shard in made.shards] == [4, 4]
    assert len({row["prompt"] for row in rows}) == 8
    assert made.items_in == made.rows + sum(made.drops.values())


def test_result_does_not_depend_on_the_order_of_slices(tmp_path: Path) -> None:
    stage = PromptsStage()
    whole = finished(text_run(stage, small_round(tmp_path / "a"), ScriptedResources()))
    run = text_run(PromptsStage(), small_round(tmp_path / "b"), ScriptedResources())
    for spec in reversed(stage.shards(run)):
        run.compute_shard(spec)
    assert finished(run).digest == whole.digest


def test_duplicates_between_slices_are_filled_up_by_a_later_wave(tmp_path: Path) -> None:
    config = small_round(tmp_path, prompts={"quotas": {"color_2": 60, "complex": 60}, "attempts_per_prompt": 30})
    run = text_run(PromptsStage(), config, ScriptedResources())
    made = finished(run)
    assert made.rows == 120 and made.drops["duplicate"] > 0
    waves = {key.rpartition("/")[2].split("-")[1] for key in run.storage.list(made.prefix) if "/raw-" in key}
    assert {"0", "1"} <= waves
    assert len({row["prompt"] for row in iter_rows(run.storage, made)}) == 120


def test_contamination_list_keeps_its_prompts_out_and_counts_by_content(tmp_path: Path) -> None:
    free = finished(text_run(PromptsStage(), small_round(tmp_path / "a"), ScriptedResources()))
    free_run = text_run(PromptsStage(), small_round(tmp_path / "a"), ScriptedResources())
    taken = read_shard(free_run.storage, free, 0)["prompt"].to_pylist()
    banned = tmp_path / "banned.txt"
    banned.write_text("\n".join(taken) + "\n", encoding="utf-8")
    config = small_round(tmp_path / "b", prompts={"contamination_lists": [str(banned)], "quotas": {"color_2": 5}})
    run = text_run(PromptsStage(), config, ScriptedResources())
    made = finished(run)
    assert made.drops["contaminated"] > 0
    assert not set(taken) & {row["prompt"] for row in iter_rows(run.storage, made)}
    banned.write_text("another list\n", encoding="utf-8")
    assert text_run(PromptsStage(), config, ScriptedResources()).fingerprint != made.fingerprint


def test_unmet_quota_fails_with_what_fell_short_or_warns(tmp_path: Path) -> None:
    quotas = {"quotas": {"color_2": 400, "complex": 2}, "attempts_per_prompt": 1}
    run = text_run(PromptsStage(), small_round(tmp_path / "a", prompts=quotas), ScriptedResources())
    with pytest.raises(StageError, match=r"color_2 \d+ of 400"):
        finished(run)
    config = small_round(tmp_path / "b", prompts={**quotas, "on_unmet_quota": "warn"})
    made = finished(text_run(PromptsStage(), config, ScriptedResources()))
    assert made.extra["unmet_quotas"]["color_2"] == 400 + 2 - made.rows - made.extra["unmet_quotas"].get("complex", 0)


def test_zero_prompts_wanted_or_written_are_refused(tmp_path: Path) -> None:
    nothing = small_round(tmp_path, prompts={"quotas": {SubCategory.COLOR_1: 0}})
    with pytest.raises(ConfigError, match=r"prompts\.quotas"):
        finished(text_run(PromptsStage(), nothing, ScriptedResources()))

    class Mute(ScriptedResources):
        def __init__(self) -> None:
            super().__init__()
            self.engine.generate = lambda requests: [_nothing() for _ in requests]  # type: ignore[method-assign]  # a mute model

    with pytest.raises(StageError, match="only 0 of the first 16 answers"):
        finished(text_run(PromptsStage(), small_round(tmp_path), Mute()))
    with pytest.raises(StageError, match="no usable prompt"):
        finished(text_run(PromptsStage(), small_round(tmp_path, engine={"min_parsed": 0}), Mute()))


def _nothing() -> object:
    from ospo_core.engines.base import Completion

    return Completion(text="", tokens=0, finish="stop")


def test_missing_contamination_list_is_named(tmp_path: Path) -> None:
    config = small_round(tmp_path, prompts={"contamination_lists": ["/nowhere/list.txt"]})
    with pytest.raises(ConfigError, match=r"/nowhere/list\.txt"):
        finished(text_run(PromptsStage(), config, ScriptedResources()))


def test_contamination_lists_are_read_as_they_are_written(tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    config = small_round(tmp_path, prompts={"contamination_lists": [str(listed)]})
    listed.write_bytes("\ufeffa cup\r\n\r\n a\u2028b \n".encode())
    assert {"a cup", "a\u2028b"} < set(excluded_prompts(config)), "without the mark of byte order, cut at ends of lines"
    for content, problem in ((b"a\xffb", "not UTF-8 text: byte 1 is 0xff"), (None, "is not a file")):
        listed.unlink()
        listed.write_bytes(content) if content is not None else listed.mkdir()
        with pytest.raises(ConfigError, match=rf"^prompts\.contamination_lists: {problem}"):
            excluded_prompts(config)
