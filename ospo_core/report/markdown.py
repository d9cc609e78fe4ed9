"""The pages about stages, pairs and rounds as Markdown with pictures inside, for user interfaces that show Markdown."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ospo_core.artifacts.ids import derive_seed
from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.report import collect, formats
from ospo_core.report.pictures import thumbnail
from ospo_core.report.stages import StageLine, stage_lines, total_seconds
from ospo_core.schema import StageName

Floats = NDArray[np.float64]
_STEPS_DRAWN = 240
_BYTES_READ = 1 << 25
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~!])")
_MARKS = {"removed": "~~{}~~", "added": "**{}**", "same": "{}"}
Group = Mapping[str, Any]
"""Fields of `evaluation.GroupFigures`."""


def escaped(text: str) -> str:
    """Return a text on one line, with every character that Markdown could take for markup as itself."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], figures: Collection[int] = ()) -> list[str]:
    """Return the lines of a table whose cells are Markdown already.

    Args:
        heads: of the columns.
        rows: cells; no line breaks, and `|` only escaped.
        figures: numbers of the columns that are set to the right.
    """
    rule = ["---:" if index in figures else "---" for index in range(len(heads))]
    return [f"| {' | '.join(row)} |" for row in (heads, rule, *rows)]


def stage_sentence(manifest: Manifest) -> str:
    """Return what a stage did in one line: what came out, of how many, dropped by reason, and the time it took."""
    line = _line_of(manifest)
    if manifest.stage is StageName.TRAINING:
        steps, pairs = (formats.whole(manifest.counts.get(name, 0)) for name in ("steps", "pairs"))
        done = f"{steps} steps on {pairs} pairs"
    else:
        done = f"{line.rows} {line.output} of {line.items_in}"
    dropped = ", ".join(f"{count} {reason}" for reason, count in line.reasons)
    verdict = _verdict(manifest)
    parts = [done, f"dropped {dropped}" if dropped else "", line.time, verdict]
    return f"{line.name}: {'; '.join(part for part in parts if part)}"


def kept_rows(manifest: Manifest) -> list[dict[str, str | int]]:
    """Return what became of the items that came in: kept, then dropped by reason, the most frequent first."""
    dropped = sorted(manifest.drops.items(), key=lambda item: (-item[1], item[0]))
    fates = [("kept", manifest.items_in - sum(manifest.drops.values())), *dropped]
    return [
        {
            "what became of it": fate if fate == "kept" else f"dropped: {formats.human(fate)}",
            "items": count,
            "share": formats.percent(count / manifest.items_in if manifest.items_in else None),
        }
        for fate, count in fates
    ]


def stage_page(storage: Storage, manifest: Manifest) -> str:
    """Return what a stage took in, gave out and dropped, its figures, its time, and where its result lies."""
    lines = [f"# {_line_of(manifest).name.capitalize()}", ""]
    if manifest.drops:
        rows = [[str(cell) for cell in row.values()] for row in kept_rows(manifest)]
        lines += [*table(["Items", "number", "share"], rows, figures=(1, 2)), ""]
    figures = [[escaped(formats.human(name)), value] for name, value in _figures(manifest)]
    if figures:
        lines += ["## Figures", "", *table(["Figure", "value"], figures, figures=(1,)), ""]
    lines += ["## Where it lies", "", *table(["What", "value"], _whereabouts(storage, manifest)), ""]
    return "\n".join(lines)


def pairs_page(storage: Storage, manifest: Manifest, seed: int, count: int) -> str:
    """Return `count` preference pairs, chosen by the seed, with their pictures and what told them apart.

    Of large tables only some files are looked into, so that the page costs little.
    """
    pairs = collect.pair_examples(storage, _part_of(manifest, seed), seed, count, show=thumbnail)
    heads = ["Chosen", "Rejected", "Prompt and its negative"]
    asked = ["S, chosen", "rejected", "p(yes), chosen", "rejected", "The question that tells them apart"]
    return "\n".join(
        [
            f"# {len(pairs)} of {formats.whole(manifest.rows)} preference pairs",
            "",
            "Chosen by the seed. The hard negative takes ~~this~~ out of the prompt and puts **this** in.",
            "",
            *table(heads, [_pictured(pair) for pair in pairs]),
            "",
            "## What the model answered",
            "",
            f"In the same order. S is the model's own score of a picture, from {formats.MINUS}1 to +1; the question is "
            "the one with the most different answers on the two pictures.",
            "",
            *table(asked, [_telling(pair) for pair in pairs], figures=(0, 1, 2, 3)),
        ]
    )


def curves_page(storage: Storage, manifest: Manifest) -> str:
    """Return the training curves as a picture, and where they begin and end as a table.

    Of a long training only so many steps, evenly spread, are drawn, so that the page stays small.
    """
    from ospo_core.report import plots, svg

    series = collect.training_series(storage, manifest)
    drawn = {name: _thinned(steps, values) for name, (steps, values) in series.items()}
    picture = svg.data_uri(svg.sheet(plots.curve_panels(drawn), columns=2))
    rows = [
        [escaped(formats.human(name)), f"{values[0]:.4g}", f"{values[-1]:.4g}"]
        for name, (_, values) in sorted(series.items())
        if name not in {"step", "seconds"}
    ]
    ends = table(["Measured", "at first", "at last"], rows, figures=(1, 2))
    return "\n".join(["# Training curves", "", f"![Training curves]({picture})", "", *ends])


def decision_page(decision: Mapping[str, Any], outcome: str = "", title: str = "") -> str:
    """Return the promotion gate's verdict, with accuracy before and after.

    Args:
        decision: of the stage evaluation.
        outcome: what became of the current model; empty leaves it out.
        title: of the round; empty leaves it out.
    """
    verdict = "promoted" if decision["promote"] else "refused"
    head = f"{escaped(title)}: {verdict}" if title else verdict.capitalize()
    model = f" Current model: {escaped(outcome)}." if outcome else ""
    reason = escaped(decision["reason"])
    lines = [f"# {head}", "", f"{reason[:1].upper()}{reason[1:]}.{model}", ""]
    return "\n".join([*lines, *_accuracy_table(decision)])


def round_page(title: str, manifests: Mapping[StageName, Manifest], ran: Collection[StageName], address: str) -> str:
    """Return a finished round on one page: verdict, accuracy before and after, stages, and where the report is.

    Args:
        title: of the round.
        manifests: of its stages, the evaluation among them.
        ran: the stages that were computed now.
        address: of the HTML report.
    """
    from ospo_core.report import plots, svg

    decision = manifests[StageName.EVALUATION].extra["decision"]
    chart = svg.sheet([plots.accuracy_chart([decision["overall"], *decision["categories"]])])
    rows = [
        [line.name, line.items_in, f"{line.rows} {line.output}", line.time, line.source, _dropped(line)]
        for line in stage_lines(manifests, ran)
    ]
    rows.append(["**total**", "", "", f"**{formats.duration(total_seconds(manifests))}**", "", ""])
    return "\n".join(
        [
            decision_page(decision, title=title),
            "",
            f"![Accuracy before and after]({svg.data_uri(chart)})",
            "",
            "## Stages",
            "",
            *table(["Stage", "in", "out", "time", "source", "dropped, by reason"], rows, figures=(1, 2, 3)),
            "",
            "## Report",
            "",
            "One HTML file with pictures and curves. No page can link to it; copy the address:",
            "",
            f"`{address}`",
        ]
    )


def _line_of(manifest: Manifest) -> StageLine:
    return stage_lines({manifest.stage: manifest})[0]


def _dropped(line: StageLine) -> str:
    return ", ".join(f"{count} {escaped(reason)}" for reason, count in line.reasons)


def _verdict(manifest: Manifest) -> str:
    """Return what an evaluation found, or an empty text."""
    if decision := manifest.extra.get("decision"):
        return f"{'promoted' if decision['promote'] else 'refused'}: {decision['reason']}"
    if accuracy := manifest.extra.get("accuracy"):
        whole = accuracy["groups"]["all"]
        low, high = (formats.percent(whole[end]) for end in ("low", "high"))
        return f"{formats.percent(whole['accuracy'])} right ({low} to {high}) by {accuracy['metric']}"
    return ""


def _figures(manifest: Manifest) -> list[tuple[str, str]]:
    """Return a stage's named figures, and where an oracle knows how good a selection is, that."""
    counts = [(name, formats.whole(count)) for name, count in sorted(manifest.counts.items())]
    quality: Mapping[str, float | None] = manifest.extra.get("quality") or {}
    unmet: Mapping[str, int] = manifest.extra.get("unmet_quotas") or {}
    shares = [(name, formats.percent(share)) for name, share in quality.items()]
    return [
        *counts,
        *shares,
        *((f"missing: {formats.human(name)}", formats.whole(count)) for name, count in unmet.items()),
    ]


def _thinned(steps: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Return at most `_STEPS_DRAWN` points, the first and the last among them."""
    kept = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), _STEPS_DRAWN)).round().astype(int))
    return steps[kept], values[kept]


def _whereabouts(storage: Storage, manifest: Manifest) -> list[list[str]]:
    """Return address and identity of a result, and of what it was made from."""
    upstream: Mapping[str, str] = manifest.ingredients.get("upstream") or {}
    model: Mapping[str, str] = manifest.ingredients.get("model") or {}
    rows = [
        ["folder", f"`{storage.uri(manifest.prefix)}`"],
        ["fingerprint", f"`{manifest.fingerprint}`"],
        ["digest of the content", f"`{manifest.digest}`"],
        ["made", f"{formats.moment(manifest.created_at)}, in {len(manifest.shards)} files"],
        ["time", _time(manifest)],
    ]
    rows += [["model", f"`{model['digest'][:12]}`"]] if model else []
    rows += [[f"from {escaped(name)}", f"`{content[:12]}`"] for name, content in upstream.items()]
    trained = manifest.extra.get("model_digest")
    return [*rows, *([["trained model", f"`{storage.uri(str(manifest.extra['merged']))}`"]] if trained else [])]


def _time(manifest: Manifest) -> str:
    """Return wall time, processor time and, where one was used, GPU time of a stage."""
    parts = [formats.duration(manifest.seconds), f"processors {formats.duration(manifest.cpu_seconds)}"]
    return ", ".join([*parts, *([f"GPU {formats.duration(manifest.gpu_seconds)}"] if manifest.gpu_seconds else [])])


def _accuracy_table(decision: Mapping[str, Any]) -> list[str]:
    groups: list[Group] = [decision["overall"], *decision["categories"]]
    rows = []
    for group in groups:
        ends = (formats.points(group[f"difference_{end}"]) for end in ("low", "high"))
        change = f"{formats.points(group['difference'])} ({' to '.join(ends)})"
        name = escaped(formats.group_name(group["name"]))
        rows.append([name, formats.whole(group["prompts"]), _share(group, "parent"), _share(group, "child"), change])
    heads = [f"By {decision['metric']}", "prompts", "before (95 %)", "after (95 %)", "difference in points (95 %)"]
    return table(heads, rows, figures=(1, 2, 3, 4))


def _share(group: Group, side: str) -> str:
    """Return `66.7 % (46.7 to 82.0)`; the interval only where it is known."""
    if f"{side}_low" not in group:
        return formats.percent(group[side])
    return f"{formats.percent(group[side])} ({100 * group[f'{side}_low']:.1f} to {100 * group[f'{side}_high']:.1f})"


def _part_of(manifest: Manifest, seed: int) -> Manifest:
    """Return the manifest with a few shards only, chosen by the seed: at least one, together of a bounded size."""
    filled = [shard for shard in manifest.shards if shard.rows]
    random.Random(derive_seed("report", "shards", seed)).shuffle(filled)
    sizes = itertools.accumulate(shard.bytes for shard in filled)
    kept = [shard for shard, size in zip(filled, sizes, strict=True) if size <= _BYTES_READ or shard is filled[0]]
    return manifest.model_copy(update={"shards": tuple(kept)})


def _pictured(pair: collect.PairExample) -> list[str]:
    """Return a pair's cells: both pictures, then the prompt with what the negative changes.

    The pictures come first, since a page may show a long line of text in one line and let the rest be scrolled to.
    """
    words = " ".join(_MARKS[op].format(escaped(text)) for op, text in pair.changes)
    return [f"![chosen]({pair.chosen.uri})", f"![rejected]({pair.rejected.uri})", words]


def _telling(pair: collect.PairExample) -> list[str]:
    """Return a pair's cells: its scores, and the question answered most differently with p(yes) on both pictures."""
    asked = [(one.text, one.chosen, one.rejected) for one in pair.questions]
    gaps = [(yes - no, text, yes, no) for text, yes, no in asked if yes is not None and no is not None]
    scores = [formats.signed(pair.row[f"{one}_score"]) for one in ("chosen", "rejected")]
    if not gaps:
        return [*scores, "", "", ""]
    _, text, yes, no = max(gaps)
    return [*scores, formats.decimal(yes), formats.decimal(no), escaped(text)]
