"""Metrics as JSON lines."""

from __future__ import annotations

import math
from pathlib import Path

from ospo_core.training.metrics import MetricsFollower, MetricsWriter, read_metrics


def write(path: Path, steps: range, keep_until: int = 0) -> None:
    writer = MetricsWriter(path, keep_until)
    for step in steps:
        writer.write({"step": step, "loss": 1.0 / step})
    writer.close()


def test_lines_are_read_back(tmp_path: Path) -> None:
    write(tmp_path / "m", range(1, 4))
    assert read_metrics(tmp_path / "m") == [{"step": step, "loss": 1.0 / step} for step in (1, 2, 3)]


def test_a_missing_file_has_no_lines(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "m") == []


def test_resuming_replaces_the_steps_after_the_checkpoint(tmp_path: Path) -> None:
    write(tmp_path / "m", range(1, 6))
    write(tmp_path / "m", range(4, 8), keep_until=3)
    assert [row["step"] for row in read_metrics(tmp_path / "m")] == [1, 2, 3, 4, 5, 6, 7]


def test_a_line_cut_off_by_a_kill_is_not_read_and_not_kept(tmp_path: Path) -> None:
    write(tmp_path / "m", range(1, 3))
    with (tmp_path / "m").open("a") as file:
        file.write('{"step": 3, "lo')
    assert [row["step"] for row in read_metrics(tmp_path / "m")] == [1, 2]
    write(tmp_path / "m", range(3, 4), keep_until=2)
    assert [row["step"] for row in read_metrics(tmp_path / "m")] == [1, 2, 3]


def test_what_is_not_finite_is_left_out(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path / "m")
    writer.write({"step": 1, "loss": math.nan})
    writer.close()
    assert read_metrics(tmp_path / "m") == [{"step": 1}]


def test_a_follower_reports_every_step_once(tmp_path: Path) -> None:
    follower = MetricsFollower(tmp_path / "m")
    assert follower.new() == []
    write(tmp_path / "m", range(1, 4))
    assert [row["step"] for row in follower.new()] == [1, 2, 3]
    write(tmp_path / "m", range(3, 6), keep_until=2)
    assert [row["step"] for row in follower.new()] == [4, 5]
    assert follower.new() == []
