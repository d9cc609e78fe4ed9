"""What the commands show on standard output."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ospo_core.artifacts.manifest import Manifest
from ospo_core.config import RoundConfig
from ospo_core.errors import printable
from ospo_core.evaluation.people import JudgeByPeople, Preference
from ospo_core.prompts.probe import EXAMPLES, Probe
from ospo_core.report.formats import duration, measure, verdict, whole
from ospo_core.rounds.estimates import Work
from ospo_core.rounds.garbage import Garbage
from ospo_core.rounds.lineage import Cost, Generation
from ospo_core.rounds.plan import StagePlan, Standing
from ospo_core.rounds.preflight import Finding
from ospo_core.rounds.records import RoundRecord
from ospo_core.schema import GATE, StageName
from ospo_core.stages.model_ref import ModelPointer, ModelRef, Promotion


def console() -> Console:
    """Return the console of standard output; in a file, lines are wider than 80 columns.

    It shows texts as they are: what looks like Rich's markup may stand in a path, a category or a prompt.
    """
    found = _PlainConsole(highlight=False, markup=False, emoji=False)
    return found if found.is_terminal else _PlainConsole(highlight=False, markup=False, emoji=False, width=140)


class _PlainConsole(Console):
    """A console that no text can control."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Return the text as it is shown, also in tables."""
        return super().render_str(printable(text), **options)


def show_title(text: str) -> None:
    """Show a heading."""
    console().print(f"\n{text}", style="bold")


def show_text(text: str) -> None:
    """Show plain text."""
    console().print(text, soft_wrap=True)


def show_round(
    manifests: Mapping[StageName, Manifest],
    ran: Collection[StageName] | None,
    promotion: Promotion | None,
    report: str,
) -> None:
    """Show the stages, accuracy before and after, the decision, and the address of the report."""
    from ospo_core.report.stages import round_summary

    screen = console()
    screen.print(round_summary(manifests, ran))
    evaluation = manifests.get(StageName.EVALUATION)
    if evaluation is not None:
        decision: dict[str, Any] = evaluation.extra["decision"]
        screen.print(_comparison(decision))
        if gate := evaluation.extra.get(GATE):
            screen.print(gate["scored_by"], soft_wrap=True)
        found = verdict(decision)
        colour = {"promoted": "green", "refused": "red", "waiting": "yellow"}[found]
        shown = Text(found.capitalize(), f"bold {colour}")
        screen.print(shown.append(printable(f": {decision['reason']}"), "not bold default"), soft_wrap=True)
    if promotion is not None:
        screen.print(f"Current model: {'changed' if promotion.changed else 'unchanged'}, {promotion.reason}")
    if report:
        screen.print(f"Report: {report}", soft_wrap=True)


def show_accuracy(model: str, accuracy: Mapping[str, Any]) -> None:
    """Show one model's accuracy by category."""
    table = _table(f"{model}, judged by {accuracy['judge']}", ["Category"], ["Prompts", "Accuracy", "95 % interval"])
    for name, group in accuracy["groups"].items():
        interval = f"{group['low']:.3f} to {group['high']:.3f}"
        table.add_row(name, f"{group['prompts']:.0f}", f"{group['accuracy']:.3f}", interval)
    console().print(table)


def show_benchmark(page: Mapping[str, Any]) -> None:
    """Show the scores of a benchmark, who gave them, and what has been published."""
    from ospo_core.report.benchmark import published_table, score_table

    show_text(page["scored_by"])
    changed = f" Not the protocol: {', '.join(page['changed'])}." if page["changed"] else ""
    show_text(f"{page['samples']} pictures per prompt, guidance {page['guidance']:g}.{changed}")
    for title, rows in ((page["benchmark"], score_table(page)), ("Published", published_table(page))):
        if len(rows) > 1:
            table = _table(title, rows[0][:1], rows[0][1:])
            for row in rows[1:]:
                table.add_row(*row)
            console().print(table)
    for one in page["models"]:
        for reason, count in one["drops"].items():
            show_text(f"{one['name']}: {count} of {one['pictures']} pictures without a score ({reason})")


def show_plan(
    plans: Sequence[StagePlan],
    work: Mapping[StageName, Work] | None = None,
    seconds: Mapping[StageName, float] | None = None,
    gpus: int = 1,
) -> None:
    """Show the status of each stage and, if given, what the missing ones have to do and how long it takes.

    Args:
        plans: what `plan_round` returns.
        work: expected work by stage.
        seconds: expected seconds by stage on one device.
        gpus: number of devices that share the work.
    """
    headings = ["Stage", "Status", "Rows", "Shards done", "Fingerprint", "Note"]
    table = _table("Plan", headings, [] if work is None else ["Work", "Estimated time"])
    for plan in plans:
        rows = str(plan.rows) if plan.status == "cached" else ""
        done = str(plan.shards_done) if plan.shards_done else ""
        cells = [plan.stage.value, plan.status, rows, done, plan.fingerprint[:12], plan.note]
        if work is not None and seconds is not None:
            missing = plan.status != "cached"
            took = f"about {duration(seconds[plan.stage] / gpus)}" if plan.stage in seconds else "unknown"
            cells += [_amounts(work[plan.stage]), took] if missing else ["", ""]
        table.add_row(*cells)
    console().print(table)
    if work is not None and seconds is not None:
        show_text(_expected_total(plans, work, seconds, gpus))


def show_finding(found: Finding) -> None:
    """Show the outcome of a check on one line."""
    verdict = "ok" if found.error is None else "FAILED"
    show_text(f"{verdict:<7} {found.check:<17} {duration(found.seconds):>12}  {found.detail}")


def show_probe(found: Probe, heading: bool) -> None:
    """Show one task's shares on one line, below the headings if this is the first."""
    if heading:
        show_text(f"{'sub-category':<12} {'task':<10} {'answers':>7} {'parsed':>7} {'distinct':>8} {'valid':>6}")
    parsed, distinct, valid = (f"{found.share(count):.0%}" for count in (found.parsed, found.distinct, found.valid))
    line = f"{found.sub_category:<12} {found.task:<10} {found.answers:>7} {parsed:>7} {distinct:>8} {valid:>6}"
    failed = ", ".join(f"{count} {reason}" for reason, count in Counter(found.failures).most_common(3))
    show_text(f"{line}  {failed}".rstrip())


def show_failures(found: Sequence[Probe]) -> None:
    """Show raw answers of each task by the reason for which they failed, the commonest reason first."""
    for task in dict.fromkeys(one.task for one in found):
        of_task = [one for one in found if one.task == task]
        for reason, count in sum((Counter(one.failures) for one in of_task), Counter()).most_common():
            show_title(f"{task}: {count} {reason}")
            examples = [answer for one in of_task for answer in one.examples.get(reason, ())]
            for answer in examples[:EXAMPLES]:
                show_text(f"  {answer}")


def show_probes_as_json(found: Sequence[Probe]) -> None:
    """Show everything that was found as one JSON list."""
    console().out(json.dumps([asdict(one) for one in found], indent=2), highlight=False)


def _amounts(work: Work) -> str:
    """Return amounts of work in words, one line each."""
    named = {
        "tokens": work.tokens,
        "images": work.images,
        "questions": work.questions,
        "log-probabilities": work.sequences,
        "pairs": work.pairs,
    }
    return "\n".join(f"{whole(amount)} {name}" for name, amount in named.items() if amount)


def _expected_total(
    plans: Sequence[StagePlan], work: Mapping[StageName, Work], seconds: Mapping[StageName, float], gpus: int
) -> str:
    missing = [plan.stage for plan in plans if plan.status != "cached"]
    unknown = [stage.value for stage in missing if stage not in seconds]
    known = sum(seconds[stage] for stage in missing if stage in seconds)
    if not missing:
        return "Everything is cached."
    if len(unknown) == len(missing):
        return "No estimate: this storage has no earlier results of these stages, and the profile states no speeds."
    devices = "" if gpus == 1 else f" on {gpus} GPUs, {known / 3600:.1f} GPU-hours in all"
    size = sum(work[stage].bytes for stage in missing) / 1e9
    stored = f" Storage: about {size:.0f} GB." if size >= 1 else ""
    without = f" Not included: {', '.join(unknown)} (no earlier result, no stated speed)." if unknown else ""
    return f"About {duration(known / gpus)} of work{devices}, plus the time to load models.{stored}{without}"


def show_state(root: str, start: ModelRef, current: ModelPointer | None, counts: Mapping[StageName, int]) -> None:
    """Show the model that a round starts from, the last promoted one, and how many finished results there are."""
    show_text(f"Storage: {root}")
    show_text(f"Starting model: {start.digest[:12]} ({start.source})")
    found = "none promoted yet" if current is None else f"{current.digest[:12]} (child of {current.parent[:12]})"
    show_text(f"Current model: {found}")
    finished = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
    show_text(f"Finished in this storage: {finished or 'nothing'}")


def show_lineage(generations: Sequence[Generation]) -> None:
    """Show trained models, each with the results it was made from, down to the first model."""
    screen = console()
    verdicts = {True: "promoted", False: "refused", None: "not evaluated"}
    for one in generations:
        screen.print(Text.assemble((f"model {one.model[:12]}", "bold"), f" ({verdicts[one.promoted]})"), soft_wrap=True)
        for manifest in one.stages:
            made = f"{manifest.stage.value:<14} {manifest.fingerprint[:12]}  {manifest.rows:>7} rows"
            screen.print(f"  {made}  {manifest.seconds:8.1f} s  {manifest.created_at}", soft_wrap=True)
    screen.print(f"model {generations[-1].parent[:12]} (not trained in this storage)")


def show_cost(title: str, costs: Mapping[str, Cost]) -> None:
    """Show the cost of groups of results, one line per group."""
    times = ["Wall time, s", "CPU time, s", "GPU time, s"]
    table = _table(title, [""], ["Results", "Rows", *times, "Images sampled or judged", "Tokens"])
    for name, took in costs.items():
        figures = (took.results, took.rows, took.seconds, took.cpu_seconds, took.gpu_seconds, took.images, took.tokens)
        table.add_row(name, *(f"{figure:.0f}" for figure in figures))
    console().print(table)


def show_rounds(
    root: str,
    current: ModelPointer | None,
    rounds: Sequence[tuple[RoundRecord, RoundConfig, Mapping[StageName, Standing]]],
) -> None:
    """Show the rounds of a storage, one line per round."""
    headings = ["Id", "Started", "Profile", "Seed", "From model", "Complete", "Out of date"]
    table = _table(f"Rounds in {root}", headings)
    for record, config, stages in rounds:
        done = list(stages.values()).count("up to date")
        late = ", ".join(name.value for name, standing in stages.items() if standing == "out of date")
        shown = f"{done} of {len(stages)} stages" if record.kind == "round" else f"{record.kind} only"
        mark = " (current)" if current is not None and current.digest == record.model.digest else ""
        start = f"{record.model.digest[:12]}{mark}"
        table.add_row(record.id, record.created_at, config.name, str(config.seed), start, shown, late)
    console().print(table)


def show_labels(fingerprint: str, preferred: Preference, judge: JudgeByPeople) -> None:
    """Show what people's answers say about one evaluation."""
    table = _table(f"People on evaluation {fingerprint[:12]}", ["Measure"], ["Value", "95 % interval", "Of"])
    shares = {
        "win rate of the child": (preferred.win_rate, "prompts"),
        "precision of the judge's yes": (judge.precision, "answers"),
        "recall of the judge's yes": (judge.recall, "answers"),
        "agreement with the judge": (judge.agreement, "answers"),
    }
    for name, (share, unit) in shares.items():
        value = "" if share.value is None else f"{share.value:.3f}"
        table.add_row(name, value, f"{share.low:.3f} to {share.high:.3f}", f"{share.count} {unit}")
    console().print(table)
    given = f"{preferred.wins} for the child, {preferred.ties} ties, {preferred.losses} for the parent"
    show_text(f"{preferred.labels + judge.labels} answers; {given}: {_in_words(preferred)}.")


def _in_words(preferred: Preference) -> str:
    if preferred.decided != "open":
        return f"decided for the {preferred.decided}"
    if preferred.missing is None:
        return "not decided, and how many more prompts would decide cannot be said yet"
    return f"not decided; about {preferred.missing} more prompts would decide if the difference is what it seems"


def show_outdated(identity: str, stages: Sequence[StageName]) -> None:
    """Show which later stages of a round are out of date, and how to recompute them."""
    if not stages:
        show_text(f"Round {identity}: no later stage is out of date.")
        return
    names = ", ".join(stage.value for stage in stages)
    show_text(
        f"Round {identity}: now out of date: {names}. `--cascade`, or the next run of the round, recomputes them."
    )


def show_garbage(found: Sequence[Garbage], forgotten: Sequence[str], deleted: bool) -> None:
    """Show what no round refers to, by kind and reason."""
    verdict = "Deleted" if deleted else "Would be deleted"
    table = _table(verdict, ["Kind", "Reason"], ["Results", "Files", "MB"])
    for kind, why in sorted({(one.kind, one.why) for one in found}):
        group = [one for one in found if (one.kind, one.why) == (kind, why)]
        size = sum(one.size for one in group) / 1e6
        table.add_row(kind, why, str(len(group)), str(sum(one.files for one in group)), f"{size:.1f}")
    console().print(table)
    total = f"{len(found)} results, {sum(one.size for one in found) / 1e6:.1f} MB"
    rounds = f", and the record of {', '.join(forgotten)}" if forgotten else ""
    show_text(f"{verdict}: {total}{rounds}.{'' if deleted else ' `ospo gc --delete` deletes them.'}")


def _table(title: str, words: Sequence[str], figures: Sequence[str] = ()) -> Table:
    """Return an empty table with columns of words, then columns of figures."""
    table = Table(title=title, title_justify="left")
    for heading in words:
        table.add_column(heading, overflow="fold")
    for heading in figures:
        table.add_column(heading, justify="right")
    return table


def _comparison(decision: Mapping[str, Any]) -> Table:
    table = _table(f"{measure(decision)}, 95 % intervals", ["Category"], ["Prompts", "Before", "After", "Difference"])
    for group in (*decision["categories"], decision["overall"]):
        table.add_row(
            group["name"],
            str(group["prompts"]),
            *(f"{group[s]:.3f} ({group[f'{s}_low']:.3f} to {group[f'{s}_high']:.3f})" for s in ("parent", "child")),
            f"{group['difference']:+.3f} ({group['difference_low']:+.3f} to {group['difference_high']:+.3f})",
        )
    return table
