"""Shards are resumed, manifests are found, and recomputing the same result changes nothing."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from ospo_core.artifacts.manifest import Manifest, ShardEntry
from ospo_core.artifacts.storage import Storage
from ospo_core.errors import DamagedArtifactError
from ospo_core.schema import StageName
from ospo_core.stages.attempts import Attempt
from ospo_core.stages.progress import Event, listening
from ospo_core.stages.resources import Resources, shared_resources
from ospo_core.stages.run import StageRun, content_of, in_turn, run_stage
from tests.support.fake_stages import SHARDS, NumbersStage, ShardSpec, SquaresStage
from tests.support.rounds import bound, finished, small_round


def test_stage_is_computed_once_and_then_found(tmp_path: Path) -> None:
    stage = NumbersStage()
    run = bound(stage, small_round(tmp_path))
    assert run.find() is None
    made, ran = run_stage(run)
    assert ran and run_stage(run) == (made, False) and run.find() == made
    assert set(stage.computed.values()) == {1} and len(stage.computed) == SHARDS


def test_loop_uses_what_it_is_handed_and_reports_progress(tmp_path: Path) -> None:
    called: list[str] = []
    events: list[Event] = []

    def find(run: StageRun) -> None:
        called.append("find")

    def map_shards(run: StageRun, specs: Sequence[ShardSpec]) -> Iterable[ShardEntry]:
        called.append(f"{len(specs)} shards")
        return in_turn(run, specs)

    def publish(run: StageRun, done: Sequence[ShardEntry]) -> Manifest:
        called.append(f"publish {len(done)}")
        return run.publish(done)

    with listening(events.append):
        run_stage(bound(NumbersStage(), small_round(tmp_path)), find, map_shards, publish)
    assert called == ["find", "2 shards", "1 shards", "publish 3"]
    assert [(event.kind, event.done, event.total) for event in events] == [
        ("started", 0, 2),
        ("advanced", 1, 2),
        ("advanced", 2, 2),
        ("started", 2, 3),
        ("advanced", 3, 3),
        ("finished", 0, 0),
    ]


def test_manifest_adds_up_rows_drops_and_counts(tmp_path: Path) -> None:
    made = finished(bound(NumbersStage(), small_round(tmp_path)))
    assert (made.rows, made.items_in, made.drops, made.counts) == (3, 6, {"odd": 3}, {"calls": 6})
    assert made.rows + sum(made.drops.values()) == made.items_in
    assert made.ingredients["fields"] == {"seed": 0}


def test_manifest_adds_up_the_processor_time_of_its_shards(tmp_path: Path) -> None:
    def work(spec: ShardSpec) -> None:
        began = time.process_time()
        while time.process_time() - began < 0.05:
            pass

    made = finished(bound(NumbersStage(work), small_round(tmp_path)))
    assert made.cpu_seconds == pytest.approx(sum(shard.cpu_seconds for shard in made.shards))
    assert made.cpu_seconds >= SHARDS * 0.04


def test_interrupted_stage_resumes_at_the_first_missing_shard(tmp_path: Path) -> None:
    def stop_at_second(spec: ShardSpec) -> None:
        if spec.index == 1:
            raise KeyboardInterrupt

    whole = finished(bound(NumbersStage(), small_round(tmp_path / "whole")))
    config = small_round(tmp_path / "broken")
    run = bound(NumbersStage(stop_at_second), config)
    with pytest.raises(KeyboardInterrupt):
        run_stage(run)
    assert run.find() is None
    resumed = NumbersStage()
    assert finished(bound(resumed, config)).digest == whole.digest
    assert "part-00000" not in resumed.computed


def test_fingerprint_follows_configuration_model_upstream_and_attempt(tmp_path: Path) -> None:
    stage, config, reseeded = NumbersStage(), small_round(tmp_path), small_round(tmp_path, seed=1)
    first = bound(stage, config)
    assert first.fingerprint != bound(stage, reseeded).fingerprint
    moved = bound(stage, small_round(tmp_path, storage={"root": str(tmp_path / "elsewhere")}))
    assert (first.fingerprint, first.ingredients) == (moved.fingerprint, moved.ingredients)
    assert bound(stage, config, model=first.model.model_copy(update={"digest": "1" * 64})).prefix != first.prefix
    assert bound(stage, config, attempt=Attempt(number=1)).fingerprint != first.fingerprint
    upstream = [{StageName.PROMPTS: finished(bound(stage, one))} for one in (config, reseeded)]
    squares = [bound(SquaresStage(), config, manifests) for manifests in upstream]
    assert squares[0].fingerprint != squares[1].fingerprint


def test_ingredients_of_an_attempt_keep_their_published_names() -> None:
    attempt = Attempt(where="x", overrides=("a.b=1",), number=2, of="f" * 64)
    assert attempt.ingredients() == {"where": "x", "overrides": ["a.b=1"], "attempt": 2, "of": "f" * 64}
    assert Attempt.model_validate(attempt.ingredients()) == attempt, "records of earlier versions are read"


def test_stage_run_can_be_sent_to_another_process(tmp_path: Path) -> None:
    numbers = finished(bound(NumbersStage(), small_round(tmp_path)))
    run = bound(PerItem(), small_round(tmp_path), {StageName.PROMPTS: numbers}, resources=Resources())
    sent = pickle.loads(pickle.dumps(run))
    assert (sent.fingerprint, sent.prefix, sent.config) == (run.fingerprint, run.prefix, run.config)
    assert sent.resources is shared_resources(), "another process has its own engine"
    entry, computed = sent.compute_shard(sent.stage.shards(sent)[0])
    assert computed and entry.rows == 1
    assert sent.compute_shard(sent.stage.shards(sent)[0]) == (entry, False)


class PerItem(SquaresStage):
    """Squares without the closure that cannot be pickled."""

    def __init__(self) -> None:
        super().__init__(_no_trouble)


def _no_trouble(spec: ShardSpec) -> None:
    return None


def test_recomputed_stage_with_the_same_content_leaves_later_stages_cached(tmp_path: Path) -> None:
    config, numbers, squares = small_round(tmp_path), NumbersStage(), SquaresStage()
    before = finished(bound(numbers, config))
    assert finished(bound(squares, config, {StageName.PROMPTS: before})).rows == 3
    after = finished(bound(numbers, config, attempt=Attempt(number=1)))
    assert (after.digest, numbers.computed["part-00000"]) == (before.digest, 2)
    assert after.prefix != before.prefix and finished(bound(numbers, config)) == before
    assert bound(squares, config, {StageName.PROMPTS: after}).find() is not None


def test_content_is_the_digest_that_a_stage_names(tmp_path: Path) -> None:
    made = finished(bound(NumbersStage(), small_round(tmp_path)))
    assert content_of(made) == made.digest
    assert content_of(made.model_copy(update={"extra": {"digest": "model"}})) == "model"


@pytest.mark.parametrize("suffix", [".parquet", ".json", "manifest.json"])
def test_damage_is_named_and_left_alone_by_a_new_attempt(tmp_path: Path, suffix: str) -> None:
    config, stage = small_round(tmp_path), NumbersStage()
    run = bound(stage, config)
    made = finished(run)
    if suffix == ".json":
        run.storage.delete(f"{made.prefix}/manifest.json")
    key = next(key for key in run.storage.list(made.prefix) if key.endswith(suffix))
    data = bytearray(run.storage.read(key))
    data[len(data) // 2] ^= 1
    run.storage.write(key, bytes(data))
    with pytest.raises(DamagedArtifactError, match=Path(key).name):
        run_stage(run)
    again = finished(bound(stage, config, attempt=Attempt(number=1)))
    assert again.digest == made.digest and bytes(data) == run.storage.read(key)


def test_two_runs_at_once_agree_on_one_manifest(tmp_path: Path) -> None:
    config = small_round(tmp_path)
    first, second = (finished(bound(NumbersStage(), config)) for _ in range(2))
    assert first == second
    assert len(Storage(config.storage.root).list(first.prefix)) == 2 * SHARDS + 1
