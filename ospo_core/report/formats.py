"""Numbers, durations, names, differences of texts and Markdown tables, as people read them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from difflib import SequenceMatcher
from typing import Any, Literal, NamedTuple

from ospo_core.schema import ALL, HELD_OUT

DASH = "\N{EN DASH}"
"""Stands for a figure that is not defined."""
MINUS = "\N{MINUS SIGN}"
"""The typographic minus sign, as wide as a plus."""

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~!])")


def percent(share: float | None) -> str:
    """Return a share from 0 to 1 as `61.3 %`, or a dash for None."""
    return DASH if share is None else f"{100 * share:.1f} %"


def points(share: float) -> str:
    """Return a difference of shares in signed percentage points: `+20.1`."""
    return signed(100 * share, 1)


def signed(value: float | None, digits: int = 2) -> str:
    """Return the value with its sign and `digits` decimals, or a dash for None; a rounded zero has no sign."""
    if value is None:
        return DASH
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0.0:
        return text
    return f"{'+' if value > 0 else MINUS}{text}"


def decimal(value: float | None, digits: int = 2) -> str:
    """Return the value with `digits` decimals, or a dash for None."""
    return DASH if value is None else f"{value:.{digits}f}".replace("-", MINUS)


def whole(value: float) -> str:
    """Return a count with thin spaces between thousands: `15 000`."""
    return f"{round(value):,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def duration(seconds: float) -> str:
    """Return seconds as `0.4 s`, `12 s`, `1 min 23 s` or `2 h 05 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60:02d} s"
    return f"{total // 3600} h {total % 3600 // 60:02d} min"


_NAMES = {
    "color_1": "colour, one object",
    "shape_1": "shape, one object",
    "texture_1": "texture, one object",
    "color_2": "colour, two objects",
    "shape_2": "shape, two objects",
    "texture_2": "texture, two objects",
    "spatial_2d": "2D layout",
    "spatial_3d": "3D layout",
    "numeracy_1": "counting, one kind",
    "numeracy_2": "counting, two kinds",
    "non_spatial": "non-spatial",
}


def human(name: str) -> str:
    """Return a category, stage, reason or metric in words: `near_duplicate` becomes `near duplicate`."""
    return _NAMES.get(name, name.replace("_", " "))


def verdict(decision: Mapping[str, Any]) -> str:
    """Return the decision of a promotion gate in one word: `promoted`, `refused`, or `waiting` for people."""
    return "promoted" if decision["promote"] else "waiting" if decision.get("waiting") else "refused"


def held_out_figures(extra: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the figures of held-out prompts: the decision, or what stands beside it where a benchmark decided.

    They are empty where nothing was decided.
    """
    figures: Mapping[str, Any] = extra.get(HELD_OUT) or extra.get("decision") or {}
    return figures


def measure(decision: Mapping[str, Any], where: str = "") -> str:
    """Return what the figures of a decision are, in words: `Accuracy by oracle`, or `Score on the benchmark geneval`.

    `where` says of an accuracy on what it was measured.
    """
    if decision["metric"] == "benchmark":
        return f"Score on {decision['judge']}"
    return f"Accuracy{where} by {decision['metric']}"


def group_name(name: str) -> str:
    """Return the name of a group of held-out prompts in words; `all` is the whole set."""
    return "all prompts" if name == ALL else human(name)


def moment(timestamp: str) -> str:
    """Return an ISO 8601 time as `2026-01-02 03:04 UTC`; anything else unchanged."""
    try:
        return datetime.fromisoformat(timestamp).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return timestamp


def reasons(drops: Mapping[str, int]) -> list[tuple[str, str]]:
    """Return (reason, count) in words, the most frequent first; reasons with no drops are omitted."""
    ordered = sorted(drops.items(), key=lambda item: (-item[1], item[0]))
    return [(human(reason), whole(count)) for reason, count in ordered if count]


Op = Literal["same", "removed", "added"]


class Change(NamedTuple):
    """A run of consecutive words that is in both texts, only in the first, or only in the second."""

    op: Op
    words: str


def changed_words(a: str, b: str) -> list[Change]:
    """Return the word-level difference from text `a` to text `b`, in order, removed words before added ones.

    `same` and `removed` together give the words of `a`, `same` and `added` those of `b`.
    """
    first, second = a.split(), b.split()
    changes: list[Change] = []
    for tag, i, j, k, end in SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        changes.append(Change("same" if tag == "equal" else "removed", " ".join(first[i:j])))
        changes.append(Change("added", " ".join(second[k:end]) if tag != "equal" else ""))
    return [change for change in changes if change.words]


def escaped(text: str) -> str:
    """Return a text on one line, with every character that has a meaning in Markdown escaped."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]], figures: Collection[int] = ()) -> list[str]:
    """Return the lines of a Markdown table.

    Args:
        heads: column headings.
        rows: cells in Markdown: no line breaks, and `|` only escaped.
        figures: indices of the columns that are aligned right.
    """
    rule = ["---:" if index in figures else "---" for index in range(len(heads))]
    return [f"| {' | '.join(row)} |" for row in (heads, rule, *rows)]
