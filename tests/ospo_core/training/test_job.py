"""The identity of a job, and its metrics as JSON lines."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

from ospo_core.config.sections import TrainingConfig
from ospo_core.training.job import append_metrics, cut_metrics, outcome_options, read_metrics
from tests.ospo_core.training.jobs import job, write_pairs


def test_places_and_what_changes_no_outcome_do_not_count(tmp_path: Path, pairs_path: Path) -> None:
    copied = Path(shutil.copy(pairs_path, tmp_path / "copy.parquet"))
    one = job(tmp_path / "a", pairs_path, tmp_path / "x", checkpoint_every=2, gradient_checkpointing=True)
    other = job(tmp_path / "b", copied, tmp_path / "y", checkpoint_every=7)
    assert one.identity() == other.identity()


def test_options_about_imported_pairs_count_only_with_such_pairs() -> None:
    named = {"imported_pairs", "own_pairs"}
    assert not named & set(outcome_options(TrainingConfig()))
    assert named <= set(outcome_options(TrainingConfig(imported_pairs="0" * 64)))


def test_pairs_options_seed_and_model_count(tmp_path: Path, pairs_path: Path) -> None:
    fewer = write_pairs(tmp_path / "fewer.parquet", count=3)
    identities = {
        job(tmp_path, pairs_path, tmp_path).identity(),
        job(tmp_path, fewer, tmp_path).identity(),
        job(tmp_path, pairs_path, tmp_path, learning_rate=2e-5).identity(),
        job(tmp_path, pairs_path, tmp_path, seed=4).identity(),
        job(tmp_path, pairs_path, tmp_path).model_copy(update={"model_digest": "other"}).identity(),
    }
    assert len(identities) == 5


def test_a_job_survives_its_file(tmp_path: Path, pairs_path: Path) -> None:
    one = job(tmp_path, pairs_path, tmp_path)
    assert type(one).model_validate_json(one.model_dump_json()) == one


def write_metrics(path: Path, steps: range, keep_until: int = 0) -> None:
    cut_metrics(path, keep_until)
    for step in steps:
        append_metrics(path, {"step": step, "loss": 1.0 / step})


def test_lines_are_read_back(tmp_path: Path) -> None:
    write_metrics(tmp_path / "m", range(1, 4))
    assert read_metrics(tmp_path / "m") == [{"step": step, "loss": 1.0 / step} for step in (1, 2, 3)]


def test_a_missing_file_has_no_lines(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "m") == []


def test_resuming_replaces_the_steps_after_the_checkpoint(tmp_path: Path) -> None:
    write_metrics(tmp_path / "m", range(1, 6))
    write_metrics(tmp_path / "m", range(4, 8), keep_until=3)
    assert [row["step"] for row in read_metrics(tmp_path / "m")] == [1, 2, 3, 4, 5, 6, 7]


def test_a_line_cut_off_by_a_kill_is_not_read_and_not_kept(tmp_path: Path) -> None:
    write_metrics(tmp_path / "m", range(1, 3))
    with (tmp_path / "m").open("a") as file:
        file.write('{"step": 3, "lo')
    assert [row["step"] for row in read_metrics(tmp_path / "m")] == [1, 2]
    write_metrics(tmp_path / "m", range(3, 4), keep_until=2)
    assert [row["step"] for row in read_metrics(tmp_path / "m")] == [1, 2, 3]


def test_what_is_not_finite_is_left_out(tmp_path: Path) -> None:
    append_metrics(tmp_path / "m", {"step": 1, "loss": math.nan})
    assert read_metrics(tmp_path / "m") == [{"step": 1}]


def test_only_the_steps_after_the_last_one_seen_are_read(tmp_path: Path) -> None:
    """Each step is seen once, even if the file was rewritten in between."""
    assert read_metrics(tmp_path / "m", after=0) == []
    write_metrics(tmp_path / "m", range(1, 4))
    assert [row["step"] for row in read_metrics(tmp_path / "m", after=0)] == [1, 2, 3]
    write_metrics(tmp_path / "m", range(3, 6), keep_until=2)
    assert [row["step"] for row in read_metrics(tmp_path / "m", after=3)] == [4, 5]
    assert read_metrics(tmp_path / "m", after=5) == []
