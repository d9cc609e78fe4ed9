"""Markdown pages about stages, pairs and rounds, with embedded pictures, for user interfaces that render Markdown."""

from __future__ import annotations

import itertools
import random
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from ospo_core.artifacts.ids import derive_seed
from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.report import collect, formats
from ospo_core.report.formats import escaped, markdown_table
from ospo_core.report.pictures import thumbnail
from ospo_core.report.stages import stage_line, stage_lines, total_seconds
from ospo_core.schema import ALL, StageName

_STEPS_DRAWN = 240
_BYTES_READ = 1 << 25
_MARKS = {"removed": "~~{}~~", "added": "**{}**", "same": "{}"}


def stage_sentence(manifest: Manifest) -> str:
    """Return one line about a finished stage: rows out, items in, drops by reason, and time."""
    line = stage_line(manifest)
    if manifest.stage is StageName.TRAINING:
        steps, pairs = (formats.whole(manifest.counts.get(name, 0)) for name in ("steps", "pairs"))
        done = f"{steps} steps on {pairs} pairs"
    else:
        done = f"{line.rows} {line.unit} of {line.items_in}"
    dropped = f"dropped {line.drops_in_words}" if line.reasons else ""
    parts = [done, dropped, line.time, _verdict(manifest)]
    return f"{line.name}: {'; '.join(part for part in parts if part)}"


def kept_rows(manifest: Manifest) -> list[dict[str, str | int]]:
    """Return how many items were kept, and how many dropped by reason, the most frequent first."""
    dropped = sorted(manifest.drops.items(), key=lambda item: (-item[1], item[0]))
    results = [("kept", manifest.items_in - sum(manifest.drops.values())), *dropped]
    return [
        {
            "result": result if result == "kept" else f"dropped: {formats.human(result)}",
            "items": count,
            "share": formats.percent(count / manifest.items_in if manifest.items_in else None),
        }
        for result, count in results
    ]


def stage_page(storage: Storage, manifest: Manifest) -> str:
    """Return the page of a stage: items kept and dropped, its figures, its time, and where its results are stored."""
    lines = [f"# {formats.human(manifest.stage.value).capitalize()}", ""]
    if manifest.drops:
        rows = [[str(cell) for cell in row.values()] for row in kept_rows(manifest)]
        lines += [*markdown_table(["Items", "number", "share"], rows, figures=(1, 2)), ""]
    figures = [[escaped(formats.human(name)), value] for name, value in _figures(manifest)]
    if figures:
        lines += ["## Figures", "", *markdown_table(["Figure", "value"], figures, figures=(1,)), ""]
    lines += ["## Location", "", *markdown_table(["What", "value"], _whereabouts(storage, manifest)), ""]
    return "\n".join(lines)


def pairs_page(storage: Storage, manifest: Manifest, seed: int, count: int) -> str:
    """Return a page of `count` random preference pairs with their pictures and their most telling questions.

    Only some shards of a large table are read, to keep the page cheap.
    """
    pairs = collect.pair_examples(storage, _part_of(manifest, seed), seed, count, show=thumbnail)
    heads = ["Chosen", "Rejected", "Prompt and its negative"]
    heads_of_answers = ["S, chosen", "rejected", "p(yes), chosen", "rejected", "Most telling question"]
    return "\n".join(
        [
            f"# {len(pairs)} of {formats.whole(manifest.rows)} preference pairs",
            "",
            "Chosen at random with the seed. The hard negative removes ~~this~~ from the prompt and adds **this**.",
            "",
            *markdown_table(heads, [_picture_cells(pair) for pair in pairs]),
            "",
            "## What the model answered",
            "",
            f"In the same order. S is the model's own score of a picture, from {formats.MINUS}1 to +1. The question is "
            "the one whose answers differ most between the two pictures.",
            "",
            *markdown_table(heads_of_answers, [_answer_cells(pair) for pair in pairs], figures=(0, 1, 2, 3)),
        ]
    )


def curves_page(storage: Storage, manifest: Manifest) -> str:
    """Return a page with the training curves as a picture, and their first and last values as a table.

    Long trainings are thinned out evenly, to keep the page small.
    """
    from ospo_core.report import plots

    series = collect.training_series(storage, manifest)
    drawn = {}
    for name, (steps, values) in series.items():
        kept = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), _STEPS_DRAWN)).round().astype(int))
        drawn[name] = steps[kept], values[kept]
    chart = plots.training_curves(drawn)
    shown = ["", f"![Training curves]({plots.picture(chart).uri})"] if chart else []
    rows = [
        [escaped(formats.human(name)), f"{values[0]:.4g}", f"{values[-1]:.4g}"]
        for name, (_, values) in sorted(series.items())
        if name not in {"step", "seconds"}
    ]
    ends = markdown_table(["Measurement", "first", "last"], rows, figures=(1, 2))
    return "\n".join(["# Training curves", *shown, "", *ends])


def decision_page(decision: Mapping[str, Any], current_model: str = "", title: str = "") -> str:
    """Return a page with the promotion gate's verdict and the accuracy before and after.

    `current_model` says whether and why it changed, `title` is that of the round; empty ones are omitted.
    """
    verdict = formats.verdict(decision)
    head = f"{escaped(title)}: {verdict}" if title else verdict.capitalize()
    model = f" Current model: {escaped(current_model)}." if current_model else ""
    reason = escaped(decision["reason"])
    lines = [f"# {head}", "", f"{reason[:1].upper()}{reason[1:]}.{model}", ""]
    return "\n".join([*lines, *_accuracy_table(decision)])


def round_page(title: str, manifests: Mapping[StageName, Manifest], ran: Collection[StageName], address: str) -> str:
    """Return a page about a finished round: verdict, accuracy before and after, stages, address of the HTML report.

    `ran` are the stages computed now, rather than taken from the cache; the evaluation must be among `manifests`.
    """
    from ospo_core.report import plots

    decision = manifests[StageName.EVALUATION].extra["decision"]
    chart = plots.picture(plots.accuracy_chart([decision["overall"], *decision["categories"]]))
    rows = [
        [line.name, line.items_in, f"{line.rows} {line.unit}", line.time, line.source, escaped(line.drops_in_words)]
        for line in stage_lines(manifests, ran)
    ]
    rows.append(["**total**", "", "", f"**{formats.duration(total_seconds(manifests))}**", "", ""])
    return "\n".join(
        [
            decision_page(decision, title=title),
            "",
            f"![Accuracy before and after]({chart.uri})",
            "",
            "## Stages",
            "",
            *markdown_table(["Stage", "in", "out", "time", "source", "dropped, by reason"], rows, figures=(1, 2, 3)),
            "",
            "## Report",
            "",
            "One HTML file with pictures and curves. It cannot be linked from here; copy the address:",
            "",
            f"`{address}`",
        ]
    )


def _verdict(manifest: Manifest) -> str:
    """Return the result of an evaluation; empty for other stages."""
    if decision := manifest.extra.get("decision"):
        return f"{formats.verdict(decision)}: {decision['reason']}"
    if accuracy := manifest.extra.get("accuracy"):
        whole = accuracy["groups"][ALL]
        low, high = (formats.percent(whole[end]) for end in ("low", "high"))
        return f"{formats.percent(whole['accuracy'])} right ({low} to {high}) by {accuracy['metric']}"
    return ""


def _figures(manifest: Manifest) -> list[tuple[str, str]]:
    """Return a stage's named figures, including the quality of a selection if an oracle measured it."""
    quality: Mapping[str, float | None] = manifest.extra.get("quality") or {}
    unmet: Mapping[str, int] = manifest.extra.get("unmet_quotas") or {}
    return [
        *((name, formats.whole(count)) for name, count in sorted(manifest.counts.items())),
        *((name, formats.percent(share)) for name, share in quality.items()),
        *((f"missing: {formats.human(name)}", formats.whole(count)) for name, count in unmet.items()),
    ]


def _whereabouts(storage: Storage, manifest: Manifest) -> list[list[str]]:
    """Return the address and identity of a result and of its inputs, and the time it took."""
    upstream: Mapping[str, str] = manifest.ingredients.get("upstream") or {}
    model: Mapping[str, str] = manifest.ingredients.get("model") or {}
    gpu = f", GPU {formats.duration(manifest.gpu_seconds)}" if manifest.gpu_seconds else ""
    rows = [
        ["folder", f"`{storage.uri(manifest.prefix)}`"],
        ["fingerprint", f"`{manifest.fingerprint}`"],
        ["digest of the content", f"`{manifest.digest}`"],
        ["created", f"{formats.moment(manifest.created_at)}, in {len(manifest.shards)} files"],
        ["time", f"{formats.duration(manifest.seconds)}, CPU {formats.duration(manifest.cpu_seconds)}{gpu}"],
    ]
    if model:
        rows.append(["model", f"`{model['digest'][:12]}`"])
    rows += [[f"from {escaped(name)}", f"`{content[:12]}`"] for name, content in upstream.items()]
    if "model_digest" in manifest.extra:
        rows.append(["trained model", f"`{storage.uri(str(manifest.extra['merged']))}`"])
    return rows


def _accuracy_table(decision: Mapping[str, Any]) -> list[str]:
    groups = [decision["overall"], *decision["categories"]]
    rows = []
    for group in groups:
        ends = (formats.points(group[f"difference_{end}"]) for end in ("low", "high"))
        change = f"{formats.points(group['difference'])} ({' to '.join(ends)})"
        name = escaped(formats.group_name(group["name"]))
        rows.append([name, formats.whole(group["prompts"]), _share(group, "parent"), _share(group, "child"), change])
    by = formats.measure(decision) if decision["metric"] == "benchmark" else f"By {decision['metric']}"
    heads = [escaped(by), "prompts", "before (95 %)", "after (95 %)", "difference in points (95 %)"]
    return markdown_table(heads, rows, figures=(1, 2, 3, 4))


def _share(group: Mapping[str, Any], side: str) -> str:
    """Return `66.7 % (46.7 to 82.0)`."""
    return f"{formats.percent(group[side])} ({100 * group[f'{side}_low']:.1f} to {100 * group[f'{side}_high']:.1f})"


def _part_of(manifest: Manifest, seed: int) -> Manifest:
    """Return the manifest with a few random shards only: at least one, of bounded total size."""
    filled = [shard for shard in manifest.shards if shard.rows]
    random.Random(derive_seed("report", "shards", seed)).shuffle(filled)
    sizes = itertools.accumulate(shard.bytes for shard in filled)
    kept = [shard for shard, size in zip(filled, sizes, strict=True) if size <= _BYTES_READ or shard is filled[0]]
    return manifest.model_copy(update={"shards": tuple(kept)})


def _picture_cells(pair: collect.PairExample) -> list[str]:
    """Return a pair's cells: both pictures, then the prompt with the changes that make it the negative.

    The pictures come first: some viewers do not wrap a long prompt, and would push pictures after it out of sight.
    """
    words = " ".join(_MARKS[op].format(escaped(text)) for op, text in pair.changes)
    return [f"![chosen]({pair.chosen.uri})", f"![rejected]({pair.rejected.uri})", words]


def _answer_cells(pair: collect.PairExample) -> list[str]:
    """Return a pair's cells: both scores, p(yes) of the most telling question on both pictures, and that question."""
    answers = [(one.text, one.chosen, one.rejected) for one in pair.questions]
    gaps = [(yes - no, text, yes, no) for text, yes, no in answers if yes is not None and no is not None]
    scores = [formats.signed(pair.row[f"{one}_score"]) for one in ("chosen", "rejected")]
    if not gaps:
        return [*scores, "", "", ""]
    _, text, yes, no = max(gaps)
    return [*scores, formats.decimal(yes), formats.decimal(no), escaped(text)]
