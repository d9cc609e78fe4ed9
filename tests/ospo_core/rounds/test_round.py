"""A round binds its stages; recomputing is a new attempt beside the old result, of all items or of some."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.tables import read_table
from ospo_core.config import RoundConfig
from ospo_core.errors import ConfigError, StageError
from ospo_core.rounds import Round
from ospo_core.schema import StageName, table_from_rows
from ospo_core.stages import STAGES, run_stage
from ospo_core.stages.attempts import Attempt, stage_record
from ospo_core.stages.base import ShardResult, ShardSpec
from ospo_core.stages.model_ref import ModelRef
from ospo_core.stages.partial import KEPT_ROWS
from ospo_core.stages.run import StageRun
from tests.support.fake_stages import NumbersStage, SquaresStage
from tests.support.rounds import finished, made_up_model, small_round

NAME = StageName.IMAGES
FIRST = Attempt()


class PairsOfNumbersStage(SquaresStage):
    """Two rows per item, which say with which guidance they were made; drops one of item 1."""

    name = NAME

    def fields(self, config: RoundConfig) -> dict[str, Any]:
        return {"guidance": config.images.guidance}

    def run_shard(self, run: StageRun, spec: ShardSpec) -> ShardResult:
        self.trouble(spec)
        rows = run.rows(StageName.PROMPTS, spec.index)
        self.computed.update(row["item_id"] for row in rows)
        made = [{**row, "prompt": f"{side} {run.config.images.guidance:g}"} for row in rows for side in ("a", "b")]
        kept = [row for row in made if (row["item_id"], row["prompt"][0]) != ("item1", "b")]
        drops = {"odd": len(made) - len(kept)} if len(kept) < len(made) else {}
        return ShardResult(table_from_rows("prompts", kept), items_in=len(made), drops=drops)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> PairsOfNumbersStage:
    stage = PairsOfNumbersStage()
    monkeypatch.setitem(STAGES, StageName.PROMPTS, NumbersStage())
    monkeypatch.setitem(STAGES, NAME, stage)
    return stage


def with_numbers(root: Path, **sections: Any) -> tuple[Round, dict[StageName, Manifest]]:
    config = small_round(root, **sections)
    round = Round(config, Storage(config.storage.root), made_up_model(config))
    return round, {StageName.PROMPTS: finished(round.bind(StageName.PROMPTS, {}))}


def rows_of(round: Round, manifest: Manifest) -> list[tuple[str, str]]:
    return [(row["item_id"], row["prompt"]) for row in read_table(round.storage, manifest).to_pylist()]


def number_of(run: StageRun) -> int:
    assert run.attempt is not None
    return run.attempt.number


def test_id_follows_what_changes_results_and_nothing_else(tmp_path: Path) -> None:
    config = small_round(tmp_path)
    model, storage = made_up_model(config), Storage(config.storage.root)
    same = small_round(
        tmp_path,
        storage={"root": "elsewhere", "scratch": "there"},
        images={"batch_size": 3},
        execution={"runner": "ray"},
        model={"path": str(tmp_path / "moved"), "device": "auto"},
    )
    first = Round(config, storage, model)
    assert Round(same, storage, model).id == first.id
    others = [small_round(tmp_path, seed=1), small_round(tmp_path, images={"guidance": 2.0})]
    ids = {first.id, *(Round(one, storage, model).id for one in others)}
    ids |= {Round(config, storage, model.model_copy(update={"digest": "1" * 64})).id}
    ids |= {Round(config, storage, model, "evaluation").id}
    assert len(ids) == 5
    assert Round(config, storage, model, recorded_id="0123").id == "0123"


@pytest.mark.parametrize(("source", "rate"), [("embedded:shapes", 1e-4), (f"stored:models/{'0' * 64}", 5e-5)])
def test_a_round_that_goes_on_from_a_trained_model_has_the_rate_of_further_rounds(
    tmp_path: Path, source: str, rate: float
) -> None:
    def a_round(**training: float) -> Round:
        model = ModelRef(digest="0" * 64, source=source)
        return Round(small_round(tmp_path, training=training), Storage(str(tmp_path)), model)

    further, plain = a_round(learning_rate=1e-4, further_rate=0.5), a_round(learning_rate=rate)
    assert further.id == plain.id
    runs = [one.bind(StageName.PROMPTS, {}) for one in (further, plain)]
    assert [run.config.training.learning_rate for run in runs] == [rate, rate]
    assert further.config.training.learning_rate == 1e-4, "what is recorded is the configuration as given"


def test_chosen_items_are_recomputed_and_the_rows_of_the_others_kept(
    tmp_path: Path, stage: PairsOfNumbersStage
) -> None:
    round, above = with_numbers(tmp_path, images={"guidance": 1.0})
    before = finished(round.bind(NAME, above))
    request = Attempt(where="item_id IN ('item0', 'item1')", overrides=("images.guidance=2",))
    stage.computed.clear()
    after = finished(round.bind(NAME, above, request))
    assert set(stage.computed) == {"item0", "item1"}
    expected = [("item0", "a 2"), ("item0", "b 2"), ("item1", "a 2"), ("item2", "a 1"), ("item2", "b 1")]
    assert rows_of(round, after) == expected
    assert (after.drops, after.counts[KEPT_ROWS], after.items_in) == ({"odd": 1}, 2, 6)
    assert after.rows + sum(after.drops.values()) == after.items_in
    assert finished(round.bind(NAME, above)) == after, "the recorded attempt counts"
    assert round.storage.exists(f"{before.prefix}/manifest.json") and after.prefix != before.prefix


def test_same_options_give_the_same_content_in_the_order_of_the_prompts(
    tmp_path: Path, stage: PairsOfNumbersStage
) -> None:
    round, above = with_numbers(tmp_path)
    before = finished(round.bind(NAME, above))
    assert finished(round.bind(NAME, above, Attempt(where="item_id = 'item1'"))).digest == before.digest


def test_attempts_count_up_and_an_interrupted_one_is_resumed(tmp_path: Path, stage: PairsOfNumbersStage) -> None:
    round, above = with_numbers(tmp_path)
    run_stage(round.bind(NAME, above))
    first = round.bind(NAME, above, FIRST)
    assert first.attempt == Attempt(number=1)

    def stop_at_third(spec: ShardSpec) -> None:
        if spec.index == 2:
            raise KeyboardInterrupt

    stage.trouble = stop_at_third
    with pytest.raises(KeyboardInterrupt):
        run_stage(first)
    resumed = round.bind(NAME, above, FIRST)
    assert resumed.fingerprint == first.fingerprint
    stage.trouble = lambda spec: None
    stage.computed.clear()
    run_stage(resumed)
    assert set(stage.computed) == {"item2"}
    assert number_of(round.bind(NAME, above, FIRST)) == 2
    round.storage.delete(f"rounds/{round.id}/{NAME}.json")
    assert number_of(round.bind(NAME, above, FIRST)) == 2, "also if the record is lost"


def test_damaged_leftover_of_an_attempt_is_left_alone(tmp_path: Path, stage: PairsOfNumbersStage) -> None:
    round, above = with_numbers(tmp_path)
    made = finished(round.bind(NAME, above, FIRST))
    round.storage.delete_folder(f"rounds/{round.id}")
    round.storage.delete(f"{made.prefix}/manifest.json")
    round.storage.write(f"{made.prefix}/{made.shards[1].file}", b"other bytes")
    assert number_of(round.bind(NAME, above, FIRST)) == 2


def test_recorded_attempt_counts_until_the_inputs_change(tmp_path: Path, stage: PairsOfNumbersStage) -> None:
    round, above = with_numbers(tmp_path)
    ordinary = round.bind(NAME, above)
    assert ordinary.attempt is None and stage_record(round.storage, round.id, NAME) is None
    made = finished(round.bind(NAME, above, FIRST))
    counting = round.bind(NAME, above)
    assert counting.fingerprint == made.fingerprint and number_of(counting) == 1
    assert (counting.base, counting.round_id) == (ordinary.fingerprint, round.id)
    changed = {StageName.PROMPTS: above[StageName.PROMPTS].model_copy(update={"extra": {"digest": "other"}})}
    assert round.bind(NAME, changed).attempt is None
    run_stage(ordinary)
    assert round.bind(NAME, above).attempt is None, "what was run last counts"


def test_request_that_does_not_fit_is_refused(tmp_path: Path, stage: PairsOfNumbersStage) -> None:
    round, above = with_numbers(tmp_path)
    with pytest.raises(ConfigError, match=r"cannot be recomputed for some items only.*images, scores, pairs"):
        round.bind(StageName.PROMPTS, {}, Attempt(where="item_id = 'item0'"))
    with pytest.raises(StageError, match="stage images: has no result yet"):
        round.bind(NAME, above, Attempt(where="item_id = 'item0'"))
    run_stage(round.bind(NAME, above))
    for change in ("training.steps=7", "seed=3", "storage.root=elsewhere", "model.dtype=bfloat16"):
        with pytest.raises(ConfigError, match="also changes the results of other stages"):
            round.bind(NAME, above, Attempt(overrides=(change,)))
    assert number_of(round.bind(NAME, above, Attempt(overrides=("images.guidance=3",)))) == 1


def test_rows_of_a_deleted_result_cannot_be_kept(tmp_path: Path, stage: PairsOfNumbersStage) -> None:
    round, above = with_numbers(tmp_path)
    before = finished(round.bind(NAME, above))
    part = round.bind(NAME, above, Attempt(where="item_id = 'item1'"))
    round.storage.delete_folder(before.prefix)
    with pytest.raises(StageError, match="no longer exists"):
        run_stage(part)
