"""From a matplotlib figure to inline SVG that takes its colours and fonts from the page, in light and in dark."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
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
"""Placeholder colours: each becomes the page's CSS variable of the same name (`var(--ink)` and so on)."""

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
    """Draw in the report's style; a missing glyph is no warning, because the page's own fonts show the text."""
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def to_svg(figure: Figure, name: str, description: str) -> Markup:
    """Return the figure as an `<svg>` element; `name` (unique in the page) keeps its ids apart from other charts'.

    Args:
        figure: drawn within `chart_style`, in the placeholder colours of this module.
        name: letters, digits and dashes.
        description: read out in place of the picture.
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
