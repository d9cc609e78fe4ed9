"""From a matplotlib figure to inline SVG that inherits colours and fonts from the page, in light and in dark mode."""

from __future__ import annotations

import re
import warnings
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from io import StringIO
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#010203", "#010204", "#010205", "#010206"
BEFORE, AFTER, GOOD, BAD = "#010207", "#010208", "#010209", "#01020a"
EXTRA = "#01020b"
"""Placeholder colours; each is replaced by a CSS variable of the page, such as `var(--ink)`."""

_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "rule",
    PAPER: "card",
    BEFORE: "before",
    AFTER: "after",
    GOOD: "good",
    BAD: "bad",
    EXTRA: "extra",
}
LIGHT = {
    "ink": "#211f1b",
    "muted": "#6b665c",
    "rule": "#e4dfd4",
    "card": "#ffffff",
    "before": "#98896f",
    "after": "#2a5db0",
    "good": "#1d7f5f",
    "bad": "#b8492a",
    "extra": "#7b4fa3",
}
"""Values of the variables in the page's light mode, for charts outside the page."""

_GAP = 12.0
_STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 10.0,
    "axes.unicode_minus": True,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "text.color": INK,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "figure.facecolor": "none",
    "lines.solid_capstyle": "round",
}


@contextmanager
def chart_style() -> Iterator[None]:
    """Draw in the report's style; missing glyphs cause no warning, because the page's own fonts show the text."""
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def to_svg(figure: Figure, name: str, description: str) -> Markup:
    """Return the figure as an `<svg>` element whose ids start with `name`.

    Args:
        figure: drawn within `chart_style`, in the placeholder colours of this module.
        name: unique within the page; letters, digits and dashes.
        description: alternative text.
    """
    buffer = StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"font: (?:\w+ )*([\d.]+px)[^;\"]*", r"font-size: \1", text)
    text = re.sub(r"\bid=\"", f'id="{name}-', text)
    text = re.sub(r"(href=\"#|url\(#)", rf"\g<1>{name}-", text)
    for placeholder, variable in _VARIABLES.items():
        text = text.replace(placeholder, f"var(--{variable})")
    label = escape(description, quote=True)
    opening = re.compile(r"<svg [^>]*?viewBox=\"([^\"]+)\"[^>]*>")
    found = opening.search(text)
    box = found.group(1) if found else f"0 0 {72 * figure.get_figwidth():g} {72 * figure.get_figheight():g}"
    head = f'<svg class="chart" role="img" aria-label="{label}" viewBox="{box}" xmlns:xlink="http://www.w3.org/1999/xlink">'
    return Markup(opening.sub(lambda _: head, text, count=1).strip())


def sheet(charts: Sequence[Markup], columns: int = 1) -> str:
    """Return charts of `to_svg` as one standalone SVG document, in light colours on white.

    Args:
        charts: at least one; every column is as wide as the widest chart.
        columns: charts side by side.
    """
    sizes = [_size(chart) for chart in charts]
    width = max(size[0] for size in sizes)
    placed, top = [], _GAP
    for start in range(0, len(charts), columns):
        row = range(start, min(start + columns, len(charts)))
        for place, index in enumerate(row):
            box = f'<svg x="{_GAP + place * (width + _GAP):g}" y="{top:g}" width="{sizes[index][0]:g}" '
            placed.append(str(charts[index]).replace("<svg ", f'{box}height="{sizes[index][1]:g}" ', 1))
        top += max(sizes[index][1] for index in row) + _GAP
    across = _GAP + min(columns, len(charts)) * (width + _GAP)
    text = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{across:g}" '
        f'height="{top:g}" viewBox="0 0 {across:g} {top:g}" font-family="DejaVu Sans, Verdana, sans-serif">'
        f'<rect width="100%" height="100%" fill="var(--card)"/>{"".join(placed)}</svg>'
    )
    return re.sub(r"var\(--(\w+)\)", lambda found: LIGHT[found.group(1)], text)


def data_uri(document: str) -> str:
    """Return an SVG document as a data URI."""
    return f"data:image/svg+xml;base64,{b64encode(document.encode('utf-8')).decode('ascii')}"


def _size(chart: Markup) -> tuple[float, float]:
    """Return the width and height of a chart of `to_svg`."""
    found = re.search(r'viewBox="[\d.]+ [\d.]+ ([\d.]+) ([\d.]+)"', chart)
    if found is None:
        raise ValueError("not a chart of to_svg")
    return float(found.group(1)), float(found.group(2))
