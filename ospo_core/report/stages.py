"""The table of stages: items in, rows out, drops by reason and time; as data, and for the terminal."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from ospo_core.artifacts.manifest import Manifest
from ospo_core.errors import printable
from ospo_core.report.formats import duration, human, reasons, whole
from ospo_core.schema import StageName


@dataclass(frozen=True)
class StageLine:
    """One line of the table, ready to show.

    Attributes:
        name: of the stage, in words.
        items_in, rows: counts.
        unit: what the rows are.
        reasons: of drops, as (reason, count) in words.
        time: wall time when the stage was computed.
        source: `run` or `cached`; empty if that is not known.
    """

    name: str
    items_in: str
    rows: str
    unit: str
    reasons: list[tuple[str, str]]
    time: str
    source: str

    @property
    def drops_in_words(self) -> str:
        """The drops as `41 duplicate, 7 unparsable`."""
        return ", ".join(f"{count} {reason}" for reason, count in self.reasons)


def stage_lines(manifests: Mapping[StageName, Manifest], ran: Collection[StageName] | None = None) -> list[StageLine]:
    """Return one line per stage that has a manifest, in the order in which stages run; `ran` as for `stage_line`."""
    return [stage_line(manifests[stage], ran) for stage in StageName if stage in manifests]


def stage_line(manifest: Manifest, ran: Collection[StageName] | None = None) -> StageLine:
    """Return the line of one stage; `ran` are the stages computed now, not taken from the cache, None if not known."""
    stage = manifest.stage
    return StageLine(
        name=human(stage.value),
        items_in=whole(manifest.items_in),
        rows=whole(manifest.rows),
        unit=stage.unit,
        reasons=reasons(manifest.drops),
        time=duration(manifest.seconds),
        source="" if ran is None else ("run" if stage in ran else "cached"),
    )


def total_seconds(manifests: Mapping[StageName, Manifest]) -> float:
    """Return the total wall time of the stages when they were computed, in seconds."""
    return sum(manifest.seconds for manifest in manifests.values())


def round_summary(manifests: Mapping[StageName, Manifest], ran: Collection[StageName] | None = None) -> Table:
    """Return the table of stages for the terminal; arguments as for `stage_lines`."""
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
        cells = [line.name, line.items_in, f"{line.rows} {line.unit}", line.drops_in_words, line.time]
        table.add_row(*(Text(printable(cell)) for cell in [*cells, *([line.source] if known else [])]))
    return table
