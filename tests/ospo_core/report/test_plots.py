"""Charts: the moving mean, which metrics get a curve, colours that are those of the page, the same bytes each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from ospo_core.report import plots


def titles(figure: Figure | None) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes] if figure else []


def test_colours_are_those_of_the_page() -> None:
    css = (Path(plots.__file__).parent / "templates" / "report.css").read_text(encoding="utf-8")
    colours = {"before": plots.BEFORE, "after": plots.AFTER, "good": plots.GOOD, "bad": plots.BAD}
    assert all(f"--{name}: {colour};" in css for name, colour in colours.items())


def test_the_moving_mean_is_exact_inside_and_at_the_ends() -> None:
    mean = plots.moving_mean(np.array([0.0, 3.0, 6.0, 9.0]), 3)
    assert mean.tolist() == pytest.approx([1.5, 3.0, 6.0, 7.5])


def test_metrics_that_belong_together_share_a_panel_and_the_clock_has_none() -> None:
    steps = np.array([1.0, 2.0])
    names = ("loss", "sft", "chosen_logprob", "rejected_logprob", "seconds", "collapse_alarm", "own_thing")
    figure = plots.training_curves({name: (steps, np.zeros(2)) for name in names})
    assert titles(figure) == ["Log-probabilities, nats per token", "Loss and its parts", "own thing"]
    assert titles(plots.training_curves({"collapse_alarm": (steps, np.array([0.0, 1.0]))})) == ["collapse alarm"]
    assert plots.training_curves({"seconds": (steps, steps)}) is None


def test_a_single_step_and_an_empty_group_can_be_drawn() -> None:
    one = plots.training_curves({"loss": (np.array([1.0]), np.array([2.0]))})
    empty: dict[str, dict[str, tuple[str, plots.Values]]] = {"Nothing": {"none": (plots.GOOD, [])}}
    assert one is not None and b"<svg" in plots.svg(one) and b"<svg" in plots.svg(plots.histograms("S", empty))
    assert plots.spread_words(empty) == "Nothing, none: 0 values"


def test_a_chart_has_the_same_bytes_each_time_and_neither_date_nor_unknown_letters_matter() -> None:
    metrics = {"\u732b": (np.arange(90.0), np.sin(np.arange(90.0)))}
    first, second = (plots.training_curves(metrics) for _ in range(2))
    assert first is not None and second is not None
    assert plots.svg(first) == plots.svg(second) and "\u732b".encode() in plots.svg(first)
    assert b"date" not in plots.svg(first) and b"metadata" not in plots.svg(first)
