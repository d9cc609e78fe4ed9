"""What the commands show on standard output."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from ospo_core.artifacts.manifest import Manifest
from ospo_core.schema import StageName
from ospo_core.stages.current import ModelPointer, Promotion
from ospo_core.stages.lineage import Cost, Generation
from ospo_core.stages.model_ref import ModelRef
from ospo_core.stages.plan import StagePlan

_WIDTH_OF_A_FILE = 140


def console() -> Console:
    """Return the console of standard output; where that is a file, lines are not cut at 80 columns."""
    found = Console(highlight=False, soft_wrap=False)
    return found if found.is_terminal else Console(highlight=False, width=_WIDTH_OF_A_FILE)


def show_title(text: str) -> None:
    """Show a heading."""
    console().print(f"\n[bold]{text}[/bold]")


def show_text(text: str) -> None:
    """Show text as it is."""
    console().print(text, markup=False, soft_wrap=True)


def show_round(
    manifests: Mapping[StageName, Manifest],
    ran: Collection[StageName] | None,
    promotion: Promotion | None,
    report: str,
) -> None:
    """Show the table of stages, accuracy before and after, the decision, and where the report is."""
    from ospo_core.report.summary import round_summary

    screen = console()
    screen.print(round_summary(manifests, ran))
    evaluation = manifests.get(StageName.EVALUATION)
    if evaluation is not None:
        decision: dict[str, Any] = evaluation.extra["decision"]
        screen.print(_comparison(decision))
        verdict = "[bold green]Promoted" if decision["promote"] else "[bold red]Refused"
        screen.print(f"{verdict}[/]: {decision['reason']}", soft_wrap=True)
    if promotion is not None:
        screen.print(f"Current model: {'changed' if promotion.changed else 'unchanged'}, {promotion.reason}")
    if report:
        screen.print("Report:", report, soft_wrap=True, markup=False)


def show_accuracy(model: str, accuracy: Mapping[str, Any]) -> None:
    """Show one model's accuracy by category."""
    table = Table(title=f"{model}, judged by {accuracy['metric']}", title_justify="left")
    for heading in ("Category", "Prompts", "Accuracy", "95 % interval"):
        table.add_column(heading, justify="left" if heading == "Category" else "right")
    for name, group in accuracy["groups"].items():
        interval = f"{group['low']:.3f} to {group['high']:.3f}"
        table.add_row(name, f"{group['prompts']:.0f}", f"{group['accuracy']:.3f}", interval)
    console().print(table)


def show_plan(plans: Sequence[StagePlan]) -> None:
    """Show what would become of each stage."""
    table = Table(title="Plan", title_justify="left")
    for heading in ("Stage", "Status", "Rows", "Shards done", "Fingerprint", "Note"):
        table.add_column(heading, overflow="fold")
    for plan in plans:
        rows = str(plan.rows) if plan.status == "cached" else ""
        done = str(plan.shards_done) if plan.shards_done else ""
        table.add_row(plan.stage.value, plan.status, rows, done, plan.fingerprint[:12], plan.note)
    console().print(table)


def show_models(root: str, start: ModelRef, current: ModelPointer | None) -> None:
    """Show which model a round starts from, and which one was promoted last."""
    screen = console()
    screen.print("Storage:", root, soft_wrap=True, markup=False)
    screen.print(f"Starting model: {start.digest[:12]} ({start.source})", soft_wrap=True, markup=False)
    found = "none promoted yet" if current is None else f"{current.digest[:12]} (child of {current.parent[:12]})"
    screen.print(f"Current model: {found}", markup=False)


def show_inventory(counts: Mapping[StageName, int]) -> None:
    """Show how many finished results of each stage the storage holds."""
    found = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
    console().print(f"Finished in this storage: {found or 'nothing'}")


def show_lineage(generations: Sequence[Generation]) -> None:
    """Show trained models, each with the results that it was made from, and where the line begins."""
    screen = console()
    verdicts = {True: "promoted", False: "refused", None: "not evaluated"}
    for one in generations:
        screen.print(f"[bold]model {one.model[:12]}[/bold] ({verdicts[one.promoted]})", soft_wrap=True)
        for manifest in one.stages:
            made = f"{manifest.stage.value:<14} {manifest.fingerprint[:12]}  {manifest.rows:>7} rows"
            screen.print(f"  {made}  {manifest.seconds:8.1f} s  {manifest.created_at}", markup=False, soft_wrap=True)
    screen.print(f"model {generations[-1].parent[:12]} (not trained in this storage)", markup=False)


def show_cost(title: str, costs: Mapping[str, Cost]) -> None:
    """Show what some groups of results took, a line each."""
    table = Table(title=title, title_justify="left")
    for heading in ("", "Results", "Rows", "Wall time, s", "Processor time, s", "Images drawn or judged", "Tokens"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, took in costs.items():
        figures = (took.results, took.rows, took.seconds, took.cpu_seconds, took.images, took.tokens)
        table.add_row(name, *(f"{figure:.0f}" for figure in figures))
    console().print(table)


def _comparison(decision: Mapping[str, Any]) -> Table:
    table = Table(title=f"Accuracy by {decision['metric']}, 95 % intervals", title_justify="left")
    for heading in ("Category", "Prompts", "Before", "After", "Difference"):
        table.add_column(heading, justify="left" if heading == "Category" else "right")
    for group in (*decision["categories"], decision["overall"]):
        table.add_row(
            group["name"],
            str(group["prompts"]),
            *(f"{group[s]:.3f} ({group[f'{s}_low']:.3f} to {group[f'{s}_high']:.3f})" for s in ("parent", "child")),
            f"{group['difference']:+.3f} ({group['difference_low']:+.3f} to {group['difference_high']:+.3f})",
        )
    return table
