"""The table of speed at tiny sizes: every group of figures gives its rows, and a failure costs only its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks import bench
from benchmarks.contest import Rival, Row, Side, compete, peak_of_tensors
from benchmarks.rows import QUICK, Machine
from ospo_core.config.sections import EngineConfig


@pytest.fixture(scope="module")
def machine() -> Machine:
    """Tiny sizes, and the engine that starts fast."""
    quick = Machine(QUICK)
    quick.profile = quick.profile.model_copy(update={"engine": EngineConfig(kind="transformers")})
    return quick


@pytest.mark.parametrize(
    ("group", "figures"), [("images", 7), ("questions", 7), ("training", 12), ("text", 4), ("bytes", 2)]
)
def test_every_group_gives_its_rows(machine: Machine, group: str, figures: int) -> None:
    report = bench.measure([group], machine)
    assert not report["failures"]
    assert len(report["rows"]) == figures
    assert all(row["ratio"] > 0 and row["low"] <= row["ratio"] <= row["high"] for row in report["rows"])
    table = [line for line in bench.markdown(report).splitlines() if line.startswith("|")]
    assert len(table) == 2 + figures and {line.count("|") for line in table} == {1 + len(bench.COLUMNS)}
    json.dumps(report, allow_nan=False)


def test_a_step_is_counted_in_operators_and_bytes(machine: Machine) -> None:
    step = bench.operators_per_step(machine)
    assert step["operators"] > 10 * machine.embedded.backbone.config.num_hidden_layers and step["mb_allocated"] > 0


def test_a_failure_costs_only_its_own_group(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(machine: Machine) -> Iterator[Row]:
        yield Row("figure", "rival", 2.0, 2.0, 2.0, 3.0, 2.0, 1.0)
        raise ValueError("odd")

    monkeypatch.setattr(bench, "GROUPS", {"bytes": (fail,)})
    report = bench.measure(["bytes", "round"], machine)
    assert report["failures"] == {"bytes: fail": "ValueError: odd"}
    assert report["rows"][0]["meets_goal"] is False


def test_the_turns_alternate_and_the_first_does_not_count() -> None:
    calls: list[str] = []
    ours = Side(lambda: calls.append("a"), 2)
    rows = compete("x/s", ours, [Rival("b", 1.0, Side(lambda: calls.append("b"), lambda made: 4.0))], 2)
    assert calls == ["a", "b"] * 3
    assert len(rows) == 1 and rows[0].against == "b"


def test_the_peak_of_tensors_is_what_lived_at_once() -> None:
    def work() -> None:
        for _ in range(3):
            torch.zeros(1000).add_(1)
        kept = torch.zeros(500), torch.zeros(2000)
        del kept

    assert 10_000 <= peak_of_tensors(work) < 11_000


def test_a_value_alone_meets_its_goal_from_below() -> None:
    assert Row("s", "", 2.0, 2.0, 2.0, 3.0, 2.0, None).meets_goal
    assert not Row("s", "", 4.0, 4.0, 4.0, 3.0, 4.0, None).meets_goal
    assert Row("s", "", 4.0, 4.0, 4.0, None, 4.0, None).meets_goal is None


def test_the_table_goes_between_the_marks_of_a_document(tmp_path: Path) -> None:
    document = tmp_path / "results.md"
    document.write_text(f"a\n{bench.BEGIN}\nold\n{bench.END}\nb\n", encoding="utf-8")
    for text in ("new", "newer"):
        bench.into(document, text)
    assert document.read_text(encoding="utf-8") == f"a\n{bench.BEGIN}\n\nnewer\n{bench.END}\nb\n"
