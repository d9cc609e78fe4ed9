"""The charts of the report: accuracies with intervals, score histograms, training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from ospo_core.report import svg
from ospo_core.report.formats import group_name, human

Series = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Steps and values of one metric, two arrays of the same length."""

Values = Sequence[float] | NDArray[np.float64]

_LINE_COLOURS = (svg.AFTER, svg.BAD, svg.GOOD, svg.BEFORE, svg.EXTRA)
_SMOOTH_FROM = 60
_BINS = 40


def accuracy_chart(groups: Sequence[Mapping[str, Any]]) -> Markup:
    """Draw accuracy before and after with 95 % intervals, one line per group (fields of `evaluation.GroupFigures`)."""
    with svg.chart_style():
        figure = Figure(figsize=(8.4, 0.9 + 0.52 * len(groups)), layout="constrained")
        axes = figure.subplots()
        heights = np.arange(len(groups))[::-1]
        for which, offset, colour in (("parent", 0.13, svg.BEFORE), ("child", -0.13, svg.AFTER)):
            middle = np.array([group[which] for group in groups])
            low, high = (np.array([group[f"{which}_{end}"] for group in groups]) for end in ("low", "high"))
            axes.hlines(heights + offset, low, high, color=colour, linewidth=3.0, alpha=0.45)
            label = "before (95 % interval)" if which == "parent" else "after (95 % interval)"
            axes.plot(middle, heights + offset, "o", color=colour, markersize=7, label=label)
        axes.set_yticks(heights, [group_name(group["name"]) for group in groups])
        axes.tick_params(axis="y", labelcolor=svg.INK)
        axes.set_xlim(-0.01, 1.01)
        axes.set_ylim(-0.6, len(groups) - 0.4)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        axes.grid(visible=False, axis="y")
        figure.legend(loc="outside upper left", ncols=2)
        return svg.to_svg(figure, "accuracy", _accuracy_words(groups))


def histogram(name: str, title: str, label: str, groups: Mapping[str, tuple[str, Values]]) -> Markup:
    """Draw the distributions of scores in [-1, 1], one colour per group, each as a share of its own group.

    Args:
        name: unique within the page.
        title: heading of the chart.
        label: what the horizontal axis measures.
        groups: name in the legend to (placeholder colour of `svg`, values).
    """
    edges = np.linspace(-1.0, 1.0, _BINS + 1)
    with svg.chart_style():
        figure = Figure(figsize=(5.2, 2.9), layout="constrained")
        axes = figure.subplots()
        for legend, (colour, values) in groups.items():
            if len(values):
                counts, _ = np.histogram(np.clip(np.asarray(values), -1.0, 1.0), bins=edges)
                axes.stairs(counts / len(values), edges, fill=True, color=colour, alpha=0.3)
                axes.stairs(counts / len(values), edges, color=colour, linewidth=1.5, label=legend)
        axes.set_xlim(-1.02, 1.02)
        axes.set_xlabel(label)
        axes.set_title(title)
        axes.set_xticks([-1.0, -0.5, 0.0, 0.5, 1.0])
        axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g} %")
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.grid(visible=False, axis="x")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="best")
        return svg.to_svg(figure, name, f"{title}: " + "; ".join(_spread_words(k, v[1]) for k, v in groups.items()))


def curve_panels(metrics: Mapping[str, Series]) -> list[Markup]:
    """Draw the training metrics as small panels; related metrics share one."""
    panels: dict[str, dict[str, Series]] = {}
    for name in sorted(name for name in metrics if _is_shown(name, metrics[name])):
        panels.setdefault(_panel_of(name), {})[name] = metrics[name]
    order = [*(title for title, _ in _PANELS if title in panels), *sorted(set(panels) - {t for t, _ in _PANELS})]
    return [_curves(f"curve-{index}", title, panels[title]) for index, title in enumerate(order)]


_PANELS: tuple[tuple[str, frozenset[str]], ...] = (
    ("Log-probabilities, nats per token", frozenset({"logprob", "logprobs"})),
    ("Preference margins", frozenset({"margin"})),
    ("Share of pairs ranked correctly", frozenset({"accuracy"})),
    ("Loss and its parts", frozenset({"loss", "simpo", "cond", "sft"})),
    ("Gradient norm", frozenset({"grad"})),
    ("Learning rate", frozenset({"rate"})),
    ("Tokens per second", frozenset({"tokens"})),
)
"""Heading of a panel, and the words in a metric's name that put it there, in the order of the page."""


def _panel_of(name: str) -> str:
    words = set(name.split("_"))
    return next((title for title, marks in _PANELS if words & marks), human(name))


def _is_shown(name: str, series: Series) -> bool:
    """Return whether a metric gets a curve: clocks do not, and an alarm only if it was ever raised."""
    return name not in {"step", "seconds"} and not ("alarm" in name and not series[1].any())


def _curves(name: str, title: str, series: Mapping[str, Series]) -> Markup:
    with svg.chart_style():
        figure = Figure(figsize=(5.2, 2.9), layout="constrained")
        axes = figure.subplots()
        for index, (metric, (steps, values)) in enumerate(series.items()):
            _line(axes, steps, values, _LINE_COLOURS[index % len(_LINE_COLOURS)], human(metric))
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.grid(visible=False, axis="x")
        if title == "Learning rate":
            axes.set_ylim(bottom=0.0)
        if len(series) > 1:
            axes.legend(loc="best", fontsize=9)
        words = "; ".join(f"{human(metric)} from {v[0]:.3g} to {v[-1]:.3g}" for metric, (_, v) in series.items())
        return svg.to_svg(figure, name, f"{title}: {words}")


def _line(axes: Axes, steps: NDArray[np.float64], values: NDArray[np.float64], colour: str, label: str) -> None:
    """Draw one metric; a long one faintly, with its moving mean over a twentieth of the steps on top."""
    if len(values) < _SMOOTH_FROM:
        axes.plot(steps, values, color=colour, linewidth=1.6, label=label, marker="o" if len(values) == 1 else None)
        return
    axes.plot(steps, values, color=colour, linewidth=0.8, alpha=0.3)
    axes.plot(steps, moving_mean(values, max(3, len(values) // 20)), color=colour, linewidth=1.8, label=label)


def moving_mean(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Return the centred moving mean [N] of `values` [N]; at the ends the window is cut off."""
    kernel = np.ones(window)
    return np.convolve(values, kernel, mode="same") / np.convolve(np.ones(len(values)), kernel, mode="same")


def _accuracy_words(groups: Sequence[Mapping[str, Any]]) -> str:
    parts = [f"{group_name(g['name'])} {g['parent']:.0%} before, {g['child']:.0%} after" for g in groups]
    return "Accuracy: " + "; ".join(parts)


def _spread_words(name: str, values: Values) -> str:
    return f"{name}, {len(values)} values, mean {np.mean(values):.2f}" if len(values) else f"{name}, no values"
