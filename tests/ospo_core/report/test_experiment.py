"""Tables and curves of an experiment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ospo_core.report.experiment import CURVES, TRAINING, Results, results_markdown, training_figure, write_results


def gain(arm: str, group: str, accuracy: float, gained: float, guidance: float = 1.0) -> dict[str, Any]:
    spread = 0.05 if gained else 0.0
    return {
        "arm": arm,
        "guidance": guidance,
        "group": group,
        "accuracy": accuracy,
        "by_seed": (accuracy - spread, accuracy + spread),
        "gain": gained,
        "interval": (gained - spread, gained + spread),
    }


RESULTS = Results(
    name="ablation",
    title="An ablation",
    titles={"base": "base", "v2": "all of it"},
    gains=[
        *(gain("base", group, 0.4, 0.0, scale) for group in ("all", "layout") for scale in (1.0, 2.0)),
        *(gain("v2", group, 0.5, 0.1, scale) for group in ("all", "layout") for scale in (1.0, 2.0)),
    ],
    prompts=610,
    seeds=(0, 1),
    notes={"v2": "300 pairs, 120 steps"},
    reference="v2",
    against=[gain("base", "all", 0.4, -0.1, scale) for scale in (1.0, 2.0)],
    curves={"v2": [(range(40), [0.1] * 40), (range(40), [0.3] * 40)]},
)


def test_tables_hold_accuracy_gain_and_interval() -> None:
    lines = results_markdown(RESULTS).splitlines()
    assert "| base | 40.0 | 40.0 | 40.0, 40.0 |  |" in lines
    words = "50.0 (+10.0: +5.0 to +15.0)"
    assert f"| all of it | {words} | {words} | 45.0, 55.0 | 300 pairs, 120 steps |" in lines
    assert lines.count(f"| all of it | {words} |") == 2  # one table of categories a guidance scale
    assert any("610 held-out prompts, seeds 0, 1" in line for line in lines)


def test_other_arms_are_compared_with_the_reference() -> None:
    lines = results_markdown(RESULTS).splitlines()
    words = "-10.0 (-15.0 to -5.0)"
    assert f"| base | {words} | {words} |" in lines and "Difference from 'all of it' in points" in "\n".join(lines)
    without = replace(RESULTS, reference="", curves={})
    assert "Difference" not in results_markdown(without) and TRAINING not in results_markdown(without)


def test_training_curve_is_the_smoothed_mean_over_seeds() -> None:
    (line,) = training_figure(RESULTS).axes[0].lines
    assert len(line.get_xdata()) == 40 - 8 and list(line.get_ydata()) == pytest.approx([0.2] * 32)
    assert line.get_xdata()[0] == pytest.approx(4.0)


def test_results_are_written_with_their_curves(tmp_path: Path) -> None:
    path = write_results(RESULTS, tmp_path / "out")
    assert path.read_text(encoding="utf-8") == results_markdown(RESULTS)
    picture = (tmp_path / "out" / CURVES).read_text(encoding="utf-8")
    assert "<svg" in picture and "<svg" in (tmp_path / "out" / TRAINING).read_text(encoding="utf-8")
    assert write_results(RESULTS, tmp_path / "again").read_bytes() == path.read_bytes()
