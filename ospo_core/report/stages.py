"""The table of stages: what went in, what came out, what was dropped and why, and how long it took."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ospo_core.artifacts.manifest import Manifest
from ospo_core.report.formats import duration, human, reasons, whole
from ospo_core.schema import StageName

_OUTPUT = {
    StageName.PROMPTS: "prompts",
    StageName.PERTURBATIONS: "hard negatives",
    StageName.QUESTIONS: "question lists",
    StageName.IMAGES: "pictures",
    StageName.SCORES: "scored pictures",
    StageName.PAIRS: "preference pairs",
    StageName.TRAINING: "measurements",
    StageName.EVALUATION: "judged pictures",
}


@dataclass(frozen=True)
class StageLine:
    """One line of the table, ready to be shown; `source` is empty when it is not known whether the stage was cached."""

    name: str
    items_in: str
    rows: str
    output: str
    dropped: int
    reasons: list[tuple[str, str]]
    time: str
    source: str
    fingerprint: str


def stage_lines(manifests: Mapping[StageName, Manifest], ran: Collection[StageName] | None = None) -> list[StageLine]:
    """Return a line for every stage that has a manifest, in the order in which stages run.

    Args:
        manifests: of one round.
        ran: the stages that were computed now; the others came from the cache. None when that is not known.
    """
    return [_line(stage, manifests[stage], ran) for stage in StageName if stage in manifests]


def total_seconds(manifests: Mapping[StageName, Manifest]) -> float:
    """Return the time that the stages took when they were computed, in seconds."""
    return sum(manifest.seconds for manifest in manifests.values())


def _line(stage: StageName, manifest: Manifest, ran: Collection[StageName] | None) -> StageLine:
    source = "" if ran is None else ("run" if stage in ran else "cached")
    return StageLine(
        name=human(stage.value),
        items_in=whole(manifest.items_in),
        rows=whole(manifest.rows),
        output=_OUTPUT[stage],
        dropped=sum(manifest.drops.values()),
        reasons=reasons(manifest.drops),
        time=duration(manifest.seconds),
        source=source,
        fingerprint=manifest.fingerprint[:12],
    )
