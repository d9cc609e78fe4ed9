"""The page of a benchmark: as one self-contained HTML file, and as Markdown for the Prefect UI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ospo_core.artifacts.storage import Storage
from ospo_core.report import formats
from ospo_core.report.html import report_environment
from ospo_core.schema import ALL

Page = Mapping[str, Any]


def write_html(storage: Storage, page: Page, key: str) -> None:
    """Write the page as HTML to `key`; `page` is what `ospo_core.evaluation.benchmarks.comparison.page_of` returns."""
    view = {"page": page, "table": score_table(page), "published": published_table(page)}
    storage.write(key, report_environment().get_template("benchmark.html.j2").render(view).encode("utf-8"))


def markdown_page(page: Page) -> str:
    """Return the page as Markdown."""
    lines = [f"# Benchmark: {formats.escaped(page['benchmark'])}", "", formats.escaped(page["scored_by"]), ""]
    if page["changed"]:
        lines += [f"Not the protocol: {formats.escaped(', '.join(page['changed']))}.", ""]
    lines += _markdown(score_table(page))
    if page["published"]:
        lines += ["", "## Published, by the benchmark's own evaluator", "", *_markdown(published_table(page))]
    return "\n".join(lines)


def score_table(page: Page) -> list[list[str]]:
    """Return the headings and rows of the scores: one row per category, one column per model, and their difference."""
    names = [model["name"] for model in page["models"]]
    rows = [["category", "prompts", *names, *(["difference"] if page["difference"] else [])]]
    for category in page["categories"]:
        groups = [model["groups"].get(category) for model in page["models"]]
        prompts = next((f"{group['prompts']:.0f}" for group in groups if group), "")
        cells = [formats.group_name(category), prompts, *(_interval(group, "score") for group in groups)]
        if page["difference"]:
            cells.append(_interval(page["difference"].get(category), "difference", sign="+"))
        rows.append(cells)
    return rows


def published_table(page: Page) -> list[list[str]]:
    """Return the headings and rows of published results: one row per model."""
    known = {name: None for one in page["published"] for name in one["scores"] if name != ALL}
    names = [*known, *([ALL] if any(ALL in one["scores"] for one in page["published"]) else [])]
    rows = [["model", *(formats.group_name(name) for name in names), "source"]]
    for one in page["published"]:
        scores = [_plain(one["scores"][name]) if name in one["scores"] else "" for name in names]
        rows.append([one["model"], *scores, one["source"]])
    return rows


def _plain(score: float) -> str:
    """Return a published score with the digits that it has, at least two: `0.80`, `0.8419`."""
    return max(f"{score:.2f}", f"{score:.4f}".rstrip("0"), key=len)


def _interval(group: Mapping[str, float] | None, name: str, sign: str = "") -> str:
    """Return `0.512 (0.430 to 0.593)`; a dash without figures."""
    if group is None:
        return formats.DASH
    value, low, high = (f"{group[key]:{sign}.3f}" for key in (name, "low", "high"))
    return f"{value} ({low} to {high})"


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    escaped = [[formats.escaped(cell) for cell in row] for row in rows]
    return formats.markdown_table(escaped[0], escaped[1:], figures=range(1, len(rows[0])))
