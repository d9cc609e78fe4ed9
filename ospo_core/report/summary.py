"""The end of a round in the terminal: a table of the stages, and one line with the outcome."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from rich.table import Table
from rich.text import Text

from ospo_core.artifacts.manifest import Manifest
from ospo_core.report.formats import duration, human, percent, points
from ospo_core.report.stages import StageLine, stage_lines, total_seconds
from ospo_core.schema import StageName


def round_summary(manifests: Mapping[StageName, Manifest], ran: Collection[StageName] | None = None) -> Table:
    """Return the table of stages: items in, rows out, dropped by reason, time, and cached or run if `ran` is given."""
    known = ran is not None
    table = Table(title="Round", title_justify="left", show_footer=True, highlight=False)
    table.add_column("Stage", footer="total", no_wrap=True)
    table.add_column("In", justify="right")
    table.add_column("Out", justify="right")
    table.add_column("Dropped, by reason")
    table.add_column("Time", justify="right", footer=duration(total_seconds(manifests)), no_wrap=True)
    if known:
        table.add_column("Source")
    for line in stage_lines(manifests, ran):
        cells = [line.name, line.items_in, f"{line.rows} {line.output}", _dropped(line), line.time]
        table.add_row(*(Text(cell) for cell in [*cells, *([line.source] if known else [])]))
    return table


def outcome_text(manifests: Mapping[StageName, Manifest]) -> Text:
    """Return the outcome of the round: promoted or refused, why, and accuracy by category before and after."""
    evaluation = manifests.get(StageName.EVALUATION)
    decision = evaluation.extra.get("decision") if evaluation is not None else None
    if not decision:
        return Text("Not evaluated yet.")
    promoted = bool(decision["promote"])
    text = Text()
    text.append("Promoted" if promoted else "Refused", style="bold green" if promoted else "bold red")
    text.append(f": {decision['reason']}.")
    for group in decision["categories"]:
        change = f"{percent(group['parent'])} -> {percent(group['child'])} ({points(group['difference'])})"
        text.append(f"\n  {human(group['name'])}: {change}")
    return text


def _dropped(line: StageLine) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in line.reasons)
