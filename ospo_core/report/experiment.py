"""The results of an experiment: tables in Markdown and curves as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ospo_core.report.formats import markdown_table
from ospo_core.report.plots import moving_mean, styled, svg
from ospo_core.schema import ALL

CURVES = "guidance.svg"
TRAINING = "training.svg"
_WINDOW = 9
"""Window of the moving mean of a training curve, in steps."""

Gain = Mapping[str, Any]
"""Fields of `evaluation.comparison.Gain`."""

Curve = tuple[Sequence[int], Sequence[float]]
"""Steps and values of one training metric."""


@dataclass(frozen=True)
class Results:
    """What is reported of an experiment.

    Attributes:
        titles: arm to its title in the tables, in the order of the tables.
        gains: of every arm over the base, per guidance scale and category.
        prompts: number of held-out prompts.
        notes: arm to a few words about its training (pairs, steps).
        reference: arm that the others are also compared with, with the gains in `against`; empty for none.
        curves: arm to the mean log-probability of the chosen image by step, one curve per seed.
    """

    name: str
    title: str
    titles: Mapping[str, str]
    gains: Sequence[Gain]
    prompts: int
    seeds: Sequence[int]
    notes: Mapping[str, str] = field(default_factory=dict)
    reference: str = ""
    against: Sequence[Gain] = ()
    curves: Mapping[str, Sequence[Curve]] = field(default_factory=dict)


def results_markdown(results: Results) -> str:
    """Return the tables: all categories by guidance, then one table of categories per guidance scale."""
    scales = list(dict.fromkeys(gain["guidance"] for gain in results.gains))
    lines = [
        f"## {results.title}",
        "",
        f"`ospo experiments run {results.name}`: {results.prompts} held-out prompts, seeds "
        f"{', '.join(map(str, results.seeds))}. Pictures that the oracle accepts, in per cent, mean over seeds; in "
        "brackets the gain over the base in points, with its 95 % interval (seeds and prompts drawn again).",
        "",
        f"![Accuracy by guidance]({CURVES})",
        "",
    ]
    heads = [f"guidance {scale:g}" for scale in scales]
    lines += markdown_table(
        ["", *heads, "each seed", "training"], [_overall(results, arm, scales) for arm in results.titles]
    )
    lines += _against(results, scales) if results.reference else []
    groups = [group for group in dict.fromkeys(gain["group"] for gain in results.gains) if group != ALL]
    for scale in scales:
        lines += ["", f"By category, guidance {scale:g}:", ""]
        own = [gain for gain in results.gains if gain["guidance"] == scale]
        found = {(gain["arm"], gain["group"]): _accuracy_cell(gain) for gain in own}
        rows = [[title, *(found.get((arm, group), "") for group in groups)] for arm, title in results.titles.items()]
        lines += markdown_table(["", *groups], rows)
    if results.curves:
        lines += ["", "Log-probability of the chosen images while training:", "", f"![Training]({TRAINING})"]
    return "\n".join(lines) + "\n"


def _overall(results: Results, arm: str, scales: Sequence[float]) -> list[str]:
    """Return an arm's row of the first table; the accuracy per seed is that of the first guidance scale."""
    own = {gain["guidance"]: gain for gain in results.gains if gain["arm"] == arm and gain["group"] == ALL}
    seeds = ", ".join(f"{100 * value:.1f}" for value in own[scales[0]]["by_seed"])
    return [results.titles[arm], *(_accuracy_cell(own[scale]) for scale in scales), seeds, results.notes.get(arm, "")]


def _against(results: Results, scales: Sequence[float]) -> list[str]:
    """Return the table of differences from the reference, all categories together."""
    cells = {(gain["arm"], gain["guidance"]): gain for gain in results.against if gain["group"] == ALL}
    others = [arm for arm in results.titles if arm != results.reference]
    rows = [[results.titles[arm], *(_difference(cells[arm, scale]) for scale in scales)] for arm in others]
    words = f"Difference from {results.titles[results.reference]!r} in points, with its 95 % interval:"
    return ["", words, "", *markdown_table(["", *(f"guidance {scale:g}" for scale in scales)], rows)]


def _difference(gain: Gain) -> str:
    """Return `-6.7 (-9.0 to -4.2)`."""
    low, high = (100 * end for end in gain["interval"])
    return f"{100 * gain['gain']:+.1f} ({low:+.1f} to {high:+.1f})"


def _accuracy_cell(gain: Gain) -> str:
    """Return `57.3 (+12.1: +9.0 to +15.2)`; without a gain (the base) just the accuracy."""
    share, gained = 100 * gain["accuracy"], 100 * gain["gain"]
    low, high = (100 * end for end in gain["interval"])
    if low == high == gained == 0:
        return f"{share:.1f}"
    return f"{share:.1f} ({gained:+.1f}: {low:+.1f} to {high:+.1f})"


@styled
def guidance_figure(results: Results) -> Figure:
    """Draw accuracy over guidance, one line per arm, with the range of the seeds as a band."""
    figure, axes = _axes("guidance scale of the evaluation", "pictures right, per cent")
    for arm, title in results.titles.items():
        own = [gain for gain in results.gains if gain["arm"] == arm and gain["group"] == ALL]
        scales = [gain["guidance"] for gain in own]
        (line,) = axes.plot(scales, [100 * gain["accuracy"] for gain in own], marker="o", label=title)
        low, high = ([100 * end(gain["by_seed"]) for gain in own] for end in (min, max))
        axes.fill_between(scales, low, high, color=line.get_color(), alpha=0.12, linewidth=0)
    figure.legend(loc="outside right upper", fontsize=8)
    return figure


@styled
def training_figure(results: Results) -> Figure:
    """Draw the smoothed log-probability of the chosen image by step, one line per arm: the mean over its seeds."""
    figure, axes = _axes("step", "nats per token")
    cut = _WINDOW // 2
    for arm, curves in results.curves.items():
        steps, mean = np.asarray(curves[0][0], dtype=np.float64), np.mean([values for _, values in curves], axis=0)
        if len(mean) >= 2 * _WINDOW:
            steps, mean = steps[cut:-cut], moving_mean(mean, _WINDOW)[cut:-cut]
        axes.plot(steps, mean, label=results.titles[arm])
    figure.legend(loc="outside right upper", fontsize=8)
    return figure


def _axes(xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8.0, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=xlabel, ylabel=ylabel)
    return figure, axes


def write_results(results: Results, folder: Path) -> Path:
    """Write `results.md` and its pictures into a folder; return the path of `results.md`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CURVES).write_bytes(svg(guidance_figure(results)))
    if results.curves:
        (folder / TRAINING).write_bytes(svg(training_figure(results)))
    path = folder / "results.md"
    path.write_text(results_markdown(results), encoding="utf-8")
    return path
