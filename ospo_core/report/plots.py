"""The charts of the report: accuracies with intervals, score histograms, training curves."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from ospo_core.report.formats import group_name, human
from ospo_core.report.pictures import Picture, encoded_picture

Series = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Steps and values of one metric, two arrays of the same length."""

Values = Sequence[float] | NDArray[np.float64]

BEFORE, AFTER, GOOD, BAD = "#98896f", "#2a5db0", "#1d7f5f", "#b8492a"
"""Colours of the report in light mode; in dark mode the page inverts its charts."""

_OTHERS = ("#7b4fa3", "#c28e0e", "#3a9bb0", "#d16ba5", "#211f1b")
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ospo",
    "text.parse_math": False,
    "axes.prop_cycle": cycler("color", [AFTER, BAD, GOOD, BEFORE, *_OTHERS]),
    "axes.edgecolor": "#e4dfd4",
    "axes.labelcolor": "#6b665c",
    "axes.titlelocation": "left",
    "axes.titlesize": "medium",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4dfd4",
    "xtick.color": "#6b665c",
    "ytick.color": "#6b665c",
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "legend.frameon": False,
}

styled = matplotlib.rc_context(_STYLE)
"""Decorator of functions that draw or save a figure in the report's style."""


@styled
def svg(figure: Figure) -> bytes:
    """Return the figure as an SVG document; the same figure gives the same bytes."""
    buffer = BytesIO()
    with warnings.catch_warnings():  # the viewer's fonts show the text, so a glyph may be missing in matplotlib's
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return buffer.getvalue()


def picture(figure: Figure) -> Picture:
    """Return the figure as a picture to embed: SVG in a data URI."""
    width, height = (72 * figure.get_size_inches()).round().astype(int)
    return encoded_picture(svg(figure), "svg+xml", (int(width), int(height)), pixelated=False)


@styled
def accuracy_chart(groups: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw accuracy before and after with 95 % intervals, one line per group (fields of `evaluation.GroupFigures`)."""
    figure = Figure(figsize=(8.4, 0.9 + 0.52 * len(groups)), layout="constrained")
    axes = figure.subplots()
    heights = np.arange(len(groups))[::-1]
    for which, label, offset, colour in (("parent", "before", 0.13, BEFORE), ("child", "after", -0.13, AFTER)):
        middle, low, high = ([group[which + end] for group in groups] for end in ("", "_low", "_high"))
        axes.hlines(heights + offset, low, high, color=colour, linewidth=3.0, alpha=0.45)
        axes.plot(middle, heights + offset, "o", color=colour, markersize=7, label=f"{label} (95 % interval)")
    axes.set_yticks(heights, [group_name(group["name"]) for group in groups])
    axes.tick_params(axis="y", labelcolor="black")
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.6, len(groups) - 0.4)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    axes.grid(visible=False, axis="y")
    figure.legend(loc="outside upper left", ncols=2)
    return figure


@styled
def histograms(label: str, panels: Mapping[str, Mapping[str, tuple[str, Values]]]) -> Figure:
    """Draw distributions of scores in [-1, 1] in panels side by side, each group as a share of itself.

    `panels` maps titles to groups, and these map names in the legend to (colour, values).
    """
    figure, drawn = _panels(len(panels), columns=len(panels))
    edges = np.linspace(-1.0, 1.0, 41)
    for axes, (title, groups) in zip(drawn, panels.items(), strict=True):
        for name, (colour, values) in groups.items():
            if len(values):
                shares = np.histogram(np.clip(values, -1.0, 1.0), bins=edges)[0] / len(values)
                axes.stairs(shares, edges, fill=True, color=colour, alpha=0.3)
                axes.stairs(shares, edges, color=colour, linewidth=1.5, label=name)
        axes.set(title=title, xlabel=label, xlim=(-1.02, 1.02), xticks=[-1.0, -0.5, 0.0, 0.5, 1.0])
        axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g} %")
        axes.yaxis.set_major_locator(MaxNLocator(4))
        if any(len(values) for _, values in groups.values()):
            axes.legend()
    return figure


def spread_words(panels: Mapping[str, Mapping[str, tuple[str, Values]]]) -> str:
    """Return the number and mean of the values in every group of `histograms`, for readers who do not see them."""
    spreads = [
        f"{title}, {name}: {len(values)} values{f', mean {np.mean(values):.2f}' if len(values) else ''}"
        for title, groups in panels.items()
        for name, (_, values) in groups.items()
    ]
    return "; ".join(spreads)


_GROUPS: tuple[tuple[str, frozenset[str]], ...] = (
    ("Log-probabilities, nats per token", frozenset({"logprob", "logprobs"})),
    ("Preference margins", frozenset({"margin"})),
    ("Share of pairs ranked correctly", frozenset({"accuracy"})),
    ("Loss and its parts", frozenset({"loss", "simpo", "cond", "sft"})),
    ("Gradient norm", frozenset({"grad"})),
    ("Learning rate", frozenset({"rate"})),
    ("Tokens per second", frozenset({"tokens"})),
)
"""Title of a panel, and the words in a metric's name that put it there, in the order of the panels."""


@styled
def training_curves(metrics: Mapping[str, Series]) -> Figure | None:
    """Draw the training metrics in small panels, related metrics in one; None if there is nothing to draw.

    Clocks are not drawn, and an alarm only if it was ever raised.
    """
    panels: dict[str, dict[str, Series]] = {title: {} for title, _ in _GROUPS}
    for name, series in sorted(metrics.items()):
        if name not in {"step", "seconds"} and ("alarm" not in name or series[1].any()):
            title = next((title for title, marks in _GROUPS if marks & set(name.split("_"))), human(name))
            panels.setdefault(title, {})[name] = series
    filled = {title: panel for title, panel in panels.items() if panel}
    if not filled:
        return None
    figure, drawn = _panels(len(filled), columns=2)
    for axes, (title, panel) in zip(drawn, filled.items(), strict=True):
        for name, (steps, values) in panel.items():
            _line(axes, steps, values, human(name))
        axes.set(title=title, xlabel="step")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        if title == "Learning rate":
            axes.set_ylim(bottom=0.0)
        if len(panel) > 1:
            axes.legend(fontsize="small")
    return figure


def _panels(count: int, columns: int) -> tuple[Figure, list[Axes]]:
    """Return a figure with `count` panels in rows of `columns`; only horizontal lines are in their grids."""
    rows = -(-count // columns)
    figure = Figure(figsize=(5.2 * columns, 2.9 * rows), layout="constrained")
    drawn = [figure.add_subplot(rows, columns, place + 1) for place in range(count)]
    for axes in drawn:
        axes.grid(visible=False, axis="x")
    return figure, drawn


def _line(axes: Axes, steps: NDArray[np.float64], values: NDArray[np.float64], label: str) -> None:
    """Draw one metric; a long one faintly, with its moving mean over a twentieth of the steps on top."""
    if len(values) < 60:
        axes.plot(steps, values, label=label, marker="o" if len(values) == 1 else None)
        return
    (raw,) = axes.plot(steps, values, linewidth=0.8, alpha=0.3)
    axes.plot(steps, moving_mean(values, max(3, len(values) // 20)), color=raw.get_color(), linewidth=1.8, label=label)


def moving_mean(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Return the centred moving mean [N] of `values` [N]; at the ends the window is cut off."""
    kernel = np.ones(window)
    return np.convolve(values, kernel, mode="same") / np.convolve(np.ones(len(values)), kernel, mode="same")
