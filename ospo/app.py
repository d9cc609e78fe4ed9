"""The commands of `ospo`: their options, and nothing of what they do."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ospo.options import (
    ModelFolder,
    OutFolder,
    Overrides,
    Profile,
    Refresh,
    Rounds,
    Verbose,
)
from ospo_core.errors import OspoError
from ospo_core.schema import StageName

DEFAULT_PROFILE = "shapes"

app = typer.Typer(
    help="Self-improving preference optimization of unified multimodal models (OSPO), as a cached pipeline.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
shapes = typer.Typer(help="The embedded world of coloured shapes.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(shapes, name="shapes")
experiments = typer.Typer(help="Comparisons of configurations over seeds.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(experiments, name="experiments")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; an expected failure is one message on standard error, without traceback."""
    try:
        app(args=None if arguments is None else list(arguments), prog_name="ospo")
    except OspoError as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)


@app.command("round")
def round_command(
    profile: Profile = DEFAULT_PROFILE,
    overrides: Overrides = None,
    refresh: Refresh = None,
    verbose: Verbose = False,
) -> None:
    """Run one round of self-improvement; what is cached is not computed again."""
    from ospo import actions

    actions.run_round(profile, overrides or [], refresh or [], verbose)


@app.command()
def improve(
    profile: Profile = DEFAULT_PROFILE,
    rounds: Rounds = 2,
    overrides: Overrides = None,
    refresh: Refresh = None,
    verbose: Verbose = False,
) -> None:
    """Run several rounds, each from the model that the one before has left."""
    from ospo import actions

    actions.run_improve(profile, overrides or [], refresh or [], rounds, verbose)


@app.command()
def stage(
    name: Annotated[StageName, typer.Argument(help="The last stage to run.")],
    profile: Profile = DEFAULT_PROFILE,
    overrides: Overrides = None,
    refresh: Refresh = None,
    verbose: Verbose = False,
) -> None:
    """Run a round up to and including one stage."""
    from ospo import actions

    actions.run_round(profile, overrides or [], refresh or [], verbose, until=name)


@app.command()
def plan(profile: Profile = DEFAULT_PROFILE, overrides: Overrides = None, refresh: Refresh = None) -> None:
    """Show which stages of a round are cached and which would run; nothing is computed."""
    from ospo import actions

    actions.show_plan(profile, overrides or [], refresh or [])


@app.command()
def status(profile: Profile = DEFAULT_PROFILE, overrides: Overrides = None) -> None:
    """Show the current model, how far the round is, and what is in the storage."""
    from ospo import actions

    actions.show_status(profile, overrides or [])


@app.command()
def evaluate(
    profile: Profile = DEFAULT_PROFILE,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="A folder, `current`, or `embedded:shapes`.")
    ] = None,
    overrides: Overrides = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="Evaluate anew although it is cached.")] = False,
    verbose: Verbose = False,
) -> None:
    """Evaluate one model on the held-out prompts."""
    from ospo import actions

    chosen = [] if model is None else [f"model.path={model}"]
    actions.run_evaluate(profile, [*(overrides or []), *chosen], refresh, verbose)


@app.command()
def report(profile: Profile = DEFAULT_PROFILE, overrides: Overrides = None) -> None:
    """Write the HTML report of a round from what is cached, and show its summary."""
    from ospo import actions

    actions.write_report(profile, overrides or [])


@app.command()
def lineage(
    checkpoint: Annotated[str, typer.Argument(help="`current`, or the first digits of a trained model's digest.")],
    profile: Profile = DEFAULT_PROFILE,
    overrides: Overrides = None,
) -> None:
    """Walk from a checkpoint to its pairs, pictures, prompts and parents."""
    from ospo import actions

    actions.show_lineage(checkpoint, profile, overrides or [])


@app.command()
def cost(profile: Profile = DEFAULT_PROFILE, overrides: Overrides = None) -> None:
    """Show what all results in the storage took, by stage, and by trained model."""
    from ospo import actions

    actions.show_cost(profile, overrides or [])


@app.command()
def deploy(
    file: Annotated[
        Path | None, typer.Option("--file", help="A file of deployments; default: the shipped one.")
    ] = None,
    home: Annotated[
        Path | None,
        typer.Option("--home", help="This project's folder on the workers' machines; default: OSPO_HOME, or here."),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Only check the file; needs no server.")] = False,
) -> None:
    """Register work pools, deployments and the automation that finds dead runs on the server of PREFECT_API_URL."""
    from ospo import deploy as actions

    actions.deploy(file, home, check)


@app.command()
def rounds(profile: Profile = DEFAULT_PROFILE, overrides: Overrides = None) -> None:
    """List the rounds recorded in the storage, and how their stages stand."""
    from ospo import upkeep

    upkeep.show_rounds(profile, overrides or [])


@app.command()
def backfill(
    stage: Annotated[StageName, typer.Argument(help="The stage to compute or do over.")],
    round_: Annotated[
        str | None, typer.Option("--round", "-r", help="First digits of a round's id; by default the profile's round.")
    ] = None,
    where: Annotated[
        str, typer.Option("--where", "-w", help="Only these items: SQL over the prompts, e.g. \"category = 'layout'\".")
    ] = "",
    refresh: Annotated[bool, typer.Option("--refresh", help="Do the stage over although it is there.")] = False,
    cascade: Annotated[bool, typer.Option("--cascade", help="Do later stages that are then out of date over.")] = False,
    change: Annotated[
        list[str] | None,
        typer.Option("--change", metavar="SECTION.OPTION=VALUE", help="Option that holds for this stage only."),
    ] = None,
    profile: Profile = DEFAULT_PROFILE,
    overrides: Overrides = None,
    verbose: Verbose = False,
) -> None:
    """Compute one stage of a round, or do it or some of its items over, beside what is published."""
    from ospo import upkeep

    wanted = upkeep.Backfill(stage, round_, where, refresh, cascade, change or [])
    upkeep.run_backfill(profile, overrides or [], wanted, verbose)


@app.command()
def gc(
    delete: Annotated[bool, typer.Option("--delete", help="Delete; without it the command only shows.")] = False,
    keep_hours: Annotated[
        float, typer.Option("--keep-hours", min=0, help="Spare what was written to within so many hours.")
    ] = 24.0,
    forget: Annotated[
        list[str] | None, typer.Option("--forget", help="First digits of a round whose record is deleted first.")
    ] = None,
    profile: Profile = DEFAULT_PROFILE,
    overrides: Overrides = None,
) -> None:
    """Show, or delete, what in the storage no round refers to."""
    from ospo import upkeep

    upkeep.collect_garbage(profile, overrides or [], forget or [], keep_hours, delete)


@shapes.command()
def pretrain(
    out: OutFolder,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Steps; by default the published recipe.")] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")] = False,
    compiled: Annotated[bool, typer.Option("--compiled", help="A third faster; needs a C++ compiler.")] = False,
) -> None:
    """Train the embedded model from nothing."""
    from ospo_core.shapes.pretraining import commands

    typer.echo(f"Written to {commands.pretrain(out, steps, device, resume, compiled)}")


@shapes.command()
def measure(
    model: ModelFolder = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Pictures.")] = 600,
) -> None:
    """Measure how well a model draws and judges, by the oracle."""
    from ospo_core.evaluation.shapes_card import measure_model
    from ospo_core.models.locate import resolve_model

    figures = measure_model(model or resolve_model("embedded:shapes"), n)
    for name, value in figures.items():
        typer.echo(f"{name:<40} {value:.3f}")


@shapes.command()
def draw(
    prompt: Annotated[str, typer.Argument(help="What to draw, e.g. `a red circle left of a blue square`.")],
    out: OutFolder = Path("drawing.png"),
    model: ModelFolder = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Pictures.")] = 8,
    guidance: Annotated[float, typer.Option("--guidance", min=0, help="Scale of classifier-free guidance.")] = 1.0,
) -> None:
    """Draw pictures of a prompt."""
    from ospo_core.shapes.pretraining import commands

    typer.echo(f"Written to {commands.draw(prompt, out, model, n, guidance)}")


@experiments.command("run")
def run_experiment(
    name: Annotated[str, typer.Argument(help="A shipped experiment, or the path of a folder with `experiment.yaml`.")],
    out: OutFolder = Path("results"),
    overrides: Overrides = None,
    verbose: Verbose = False,
) -> None:
    """Train and evaluate every arm with every seed; what is cached is not computed again."""
    from ospo import experiments as actions

    actions.run(name, overrides or [], out, verbose)


@experiments.command("list")
def list_experiments() -> None:
    """Show the shipped experiments and their arms."""
    from ospo_core.config import experiment_names, load_experiment

    for name in experiment_names():
        experiment = load_experiment(name)
        typer.echo(f"{name}: {experiment.title}")
        for arm in experiment.arms:
            typer.echo(f"  {arm.name:<22} {arm.title}")
