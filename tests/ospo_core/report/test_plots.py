"""Charts: the moving mean, which metrics get a curve, colours that are those of the page."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from ospo_core.report import plots, svg


def test_light_colours_are_those_of_the_page() -> None:
    css = (Path(svg.__file__).parent / "templates" / "report.css").read_text(encoding="utf-8")
    light = dict(re.findall(r"--(\w+): (#\w+);", css[: css.index("@media")]))
    assert {name: light[name] for name in svg.LIGHT} == svg.LIGHT


def test_the_moving_mean_is_exact_inside_and_at_the_ends() -> None:
    mean = plots.moving_mean(np.array([0.0, 3.0, 6.0, 9.0]), 3)
    assert mean.tolist() == pytest.approx([1.5, 3.0, 6.0, 7.5])


def test_metrics_that_belong_together_share_a_panel_and_the_clock_has_none() -> None:
    steps = np.array([1.0, 2.0])
    names = ("loss", "sft", "chosen_logprob", "rejected_logprob", "seconds", "collapse_alarm", "own_thing")
    panels = plots.curve_panels({name: (steps, np.zeros(2)) for name in names})
    labels = [str(panel).split('aria-label="')[1].split(":")[0] for panel in panels]
    assert labels == ["Log-probabilities, nats per token", "Loss and its parts", "own thing"]
    rang = plots.curve_panels({"collapse_alarm": (steps, np.array([0.0, 1.0]))})
    assert len(rang) == 1


def test_a_single_step_and_an_empty_group_can_be_drawn() -> None:
    one = plots.curve_panels({"loss": (np.array([1.0]), np.array([2.0]))})
    empty = plots.histogram("h", "Nothing", "S", {"none": ("#000000", [])})
    assert "<svg" in one[0] and "none, no values" in empty
