"""The report of a round: one self-contained HTML file; every figure comes from the manifests and tables."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from jinja2 import BaseLoader, Environment, PackageLoader, StrictUndefined

from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.config.sections import RoundConfig
from ospo_core.report import collect, formats, plots
from ospo_core.report.stages import stage_lines, total_seconds
from ospo_core.schema import GATE, HELD_OUT, StageName

EXAMPLES = 6
"""Preference pairs shown, and comparisons before/after per group."""

_JUDGES = {"oracle": "the oracle, which reads the objects back from the pixels", "vqa": "each model itself"}
"""Who judged evaluations of version 1, whose manifests do not say it."""

Manifests = Mapping[StageName, Manifest]


def write_report(
    storage: Storage,
    manifests: Manifests,
    config: RoundConfig,
    key: str,
    ran: Collection[StageName] | None = None,
) -> str:
    """Write the report to `key`, such as `reports/round-0001.html`, and return its address; see `render_report`."""
    storage.write(key, render_report(storage, manifests, config, ran).encode("utf-8"))
    return storage.uri(key)


def render_report(
    storage: Storage, manifests: Manifests, config: RoundConfig, ran: Collection[StageName] | None = None
) -> str:
    """Return the report as HTML.

    Args:
        storage: holds the tables.
        manifests: of the round's stages; the section of an absent stage is omitted.
        config: the round's configuration.
        ran: stages computed now, rather than taken from the cache; None if that is not known.
    """
    extra = manifests[StageName.EVALUATION].extra if StageName.EVALUATION in manifests else {}
    view: dict[str, Any] = {
        "name": config.name,
        "seed": config.seed,
        "created": max((manifest.created_at for manifest in manifests.values()), default=""),
        "stages": stage_lines(manifests, ran),
        "seconds": total_seconds(manifests),
        "settings": config.model_dump(mode="json"),
        "manifests": [manifests[stage] for stage in StageName if stage in manifests],
        "decision": decision_view(extra),
        "accuracy": _accuracy(extra),
        "pairs": _pairs(storage, manifests, config.seed),
        "histograms": _histograms(storage, manifests),
        "training": training_view(storage, manifests),
        "comparisons": _comparisons(storage, manifests, config.seed),
        "judge": _judge(storage, manifests),
    }
    return report_environment().get_template("report.html.j2").render(view)


def report_environment(loader: BaseLoader | None = None) -> Environment:
    """Return the template environment of the report, with its filters; `loader` finds other templates."""
    environment = Environment(
        loader=loader or PackageLoader("ospo_core.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shared = ("percent", "points", "signed", "decimal", "whole", "duration", "human", "group_name", "moment", "verdict")
    environment.filters.update({name: getattr(formats, name) for name in shared})
    environment.filters["pretty"] = partial(json.dumps, indent=2, sort_keys=True, ensure_ascii=False)
    return environment


def decision_view(extra: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the promotion gate's decision and its chart; None before the evaluation."""
    decision = extra.get("decision")
    if not decision:
        return None
    groups = [decision["overall"], *decision["categories"]]
    held_out = extra.get(HELD_OUT)
    return {
        "judge": _JUDGES.get(decision["metric"], ""),
        **decision,
        "groups": groups,
        "chart": plots.picture(plots.accuracy_chart(groups)),
        "gate": extra.get(GATE),
        "held_out": {
            **held_out,
            "groups": [held_out["overall"], *held_out["categories"]],
            "chart": None,  # one chart is that of what decided
        }
        if held_out
        else None,
    }


def _accuracy(extra: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the accuracy of a model that was evaluated alone."""
    accuracy = extra.get("accuracy")
    return {"judge": _JUDGES[accuracy["metric"]], **accuracy} if accuracy else None


def _pairs(storage: Storage, manifests: Manifests, seed: int) -> dict[str, Any] | None:
    manifest = manifests.get(StageName.PAIRS)
    if manifest is None:
        return None
    examples = collect.pair_examples(storage, manifest, seed, EXAMPLES) if manifest.rows else []
    return {"count": manifest.rows, "examples": examples, "quality": manifest.extra.get("quality")}


def _histograms(storage: Storage, manifests: Manifests) -> dict[str, Any] | None:
    """Return histograms of the scores: of all pictures, and of those in pairs; None without any."""
    panels: dict[str, dict[str, tuple[str, plots.Values]]] = {}
    if (scores := manifests.get(StageName.SCORES)) is not None and scores.rows:
        sides = collect.scores_by(storage, scores, "side", "score")
        panels["All pictures"] = {
            "drawn from the prompt": (plots.AFTER, sides.get("base", ())),
            "drawn from its hard negative": (plots.BAD, sides.get("negative", ())),
        }
    if (pairs := manifests.get(StageName.PAIRS)) is not None and pairs.rows:
        scored = collect.pair_scores(storage, pairs)
        panels["Pictures in pairs"] = {
            "chosen": (plots.GOOD, scored["chosen"]),
            "rejected": (plots.BAD, scored["rejected"]),
        }
    label = "score S: mean of p(yes) \N{MINUS SIGN} p(no) over the questions"
    return _histogram_view(label, panels) if panels else None


def _histogram_view(label: str, panels: Mapping[str, Mapping[str, tuple[str, plots.Values]]]) -> dict[str, Any]:
    return {"chart": plots.picture(plots.histograms(label, panels)), "words": plots.spread_words(panels)}


def training_view(storage: Storage, manifests: Manifests) -> dict[str, Any] | None:
    """Return the training curves, and the first and last value of every metric; None before the training."""
    manifest = manifests.get(StageName.TRAINING)
    if manifest is None:
        return None
    series = collect.training_series(storage, manifest) if manifest.rows else {}
    ends = [(formats.human(name), len(values), values[0], values[-1]) for name, (_, values) in sorted(series.items())]
    curves = plots.training_curves(series)
    return {"chart": plots.picture(curves) if curves else None, "ends": ends}


def _comparisons(storage: Storage, manifests: Manifests, seed: int) -> dict[str, Any] | None:
    """Return the pictures before and after, grouped by the verdicts of the metric that decided the promotion."""
    manifest = manifests.get(StageName.EVALUATION)
    if manifest is None or not manifest.extra.get("decision"):
        return None
    figures = formats.held_out_figures(manifest.extra)
    groups = collect.comparisons(storage, manifest, f"{figures['metric']}_correct", seed, EXAMPLES)
    judge = figures.get("judge") or _JUDGES[figures["metric"]]
    return {"groups": groups, "total": sum(group.count for group in groups), "judge": judge}


def _judge(storage: Storage, manifests: Manifests) -> dict[str, Any] | None:
    """Return how good the judge is, on the pictures before and after training; None without an oracle."""
    manifest = manifests.get(StageName.EVALUATION)
    if manifest is None or not manifest.extra.get("judge"):
        return None
    scores = collect.scores_by(storage, manifest, "oracle_correct", "vqa_score")
    groups = {
        "right, says the oracle": (plots.GOOD, scores.get(True, ())),
        "wrong, says the oracle": (plots.BAD, scores.get(False, ())),
    }
    view = _histogram_view("the judge's score S", {"Held-out pictures": groups})
    judged_by = manifest.extra.get("judged_by", {"kind": "self", "name": ""})
    return {"models": manifest.extra["judge"], "by": judged_by, **view}
