"""What a page about a benchmark shows: one model or two, their difference, and published results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.tables import iter_rows
from ospo_core.evaluation.benchmarks.published import PUBLISHED
from ospo_core.evaluation.benchmarks.summary import difference
from ospo_core.schema import ALL

SUMMARY = "benchmark"
"""Name in the `extra` of scores of their summary."""


def page_of(storage: Storage, measured: Sequence[tuple[str, Manifest]], digests: Sequence[str] = ()) -> dict[str, Any]:
    """Return what to show of the scores of one model, or of two.

    Args:
        storage: holds the scores.
        measured: names of the models and their scores, the later one last.
        digests: of the models; empty for those that the scores name, which is the first of several that drew the same.

    Raises:
        ConfigError: two models have no scored prompt in common.
    """
    summaries = [manifest.extra[SUMMARY] for _, manifest in measured]
    last, benchmark = summaries[-1], summaries[-1]["benchmark"]
    change = None
    if len(measured) > 1:
        before, after = (list(iter_rows(storage, manifest)) for _, manifest in measured)
        change = difference(benchmark, before, after)
    published = PUBLISHED.get(benchmark, ())
    models = [
        {
            "name": name,
            "digest": digest,
            "groups": summary["groups"],
            "drops": dict(manifest.drops),
            "pictures": manifest.items_in,
        }
        for (name, manifest), summary, digest in zip(
            measured, summaries, digests or [summary["model"] for summary in summaries], strict=True
        )
    ]
    shown = {group for one in models for group in one["groups"]}
    return {
        **{name: last[name] for name in ("benchmark", "samples", "guidance", "temperature", "sources", "changed")},
        "scored_by": last["scored_by"],
        "categories": [*sorted(shown - {ALL}), *([ALL] if ALL in shown else [])],
        "models": models,
        "difference": change,
        "published": [{"model": one.model, "source": one.source, "scores": dict(one.scores)} for one in published],
    }
