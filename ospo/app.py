"""The commands of `ospo`: names, options and help texts. The code behind a command is imported when it runs."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer

from ospo import sharing
from ospo.options import DEFAULT_PROFILE, ModelFolder, OutFolder, Overrides, Profile, Refresh, Verbose
from ospo_core.errors import OspoError
from ospo_core.schema import StageName

app = typer.Typer(
    help="Self-improving preference optimization of unified multimodal models (OSPO), as a cached pipeline.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
shapes = typer.Typer(help="Train and try the embedded model of coloured shapes.", no_args_is_help=True)
app.add_typer(shapes, name="shapes")
models = typer.Typer(help="Check and convert checkpoints.", no_args_is_help=True)
app.add_typer(models, name="model")
experiments = typer.Typer(help="Compare configurations over seeds.", no_args_is_help=True)
app.add_typer(experiments, name="experiments")
sharing.register(app)


def run(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit; by default with the arguments of this process.

    An expected failure is one message on standard error, without a traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a path may hold what cannot be written
    try:
        app(args=None if arguments is None else list(arguments), prog_name="ospo")
    except OspoError as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        typer.echo("Error: disk full: what a command shows or needs cannot be written. Free space there.", err=True)
        sys.exit(1)


@app.command("round")
def round_command(
    profile: Profile = DEFAULT_PROFILE,
    overrides: Overrides = None,
    refresh: Refresh = None,
    verbose: Verbose = False,
) -> None:
    """Run one round of self-improvement, from prompts to promotion. Cached stages are not recomputed."""
    from ospo import actions

    actions.run_round(profile, overrides or [], refresh or [], verbose)


@app.command()
def improve(
    profile: Profile = DEFAULT_PROFILE,
    rounds: Annotated[int, typer.Option("--rounds", "-n", min=1, help="Number of rounds.")] = 2,
    overrides: Overrides = None,
    refresh: Refresh = None,
    verbose: Verbose = False,
) -> None:
    """Run several rounds, each from the model that the previous one promoted."""
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
def plan(
    profile: Profile = DEFAULT_PROFILE,
    overrides: Overrides = None,
    refresh: Refresh = None,
    gpus: Annotated[int, typer.Option("--gpus", "-g", min=1, help="Number of GPUs that share the work.")] = 1,
) -> None:
    """Show which stages of a round are cached, which would run, and what that costs. Nothing is computed."""
    from ospo import actions

    actions.show_plan(profile, overrides or [], refresh or [], gpus)


@app.command()
def doctor(profile: Profile = DEFAULT_PROFILE, overrides: Overrides = None) -> None:
    """Try everything a round needs, once: packages, devices, storage, one picture, one training step, one prompt."""
    from ospo import actions

    actions.run_doctor(profile, overrides or [])


@app.command()
def probe(
    profile: Profile = DEFAULT_PROFILE,
    overrides: Overrides = None,
    answers: Annotated[int, typer.Option("--answers", "-n", min=1, help="Answers per sub-category and task.")] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="Show the result as JSON.")] = False,
) -> None:
    """Try the model's language: write prompts, perturbations and questions, and show how many can be used."""
    from ospo import actions

    actions.run_probe(profile, overrides or [], answers, as_json)


@app.command()
def status(profile: Profile = DEFAULT_PROFILE, overrides: Overrides = None) -> None:
    """Show the current model, the progress of the round, and what the storage holds."""
    from ospo import actions

    actions.show_status(profile, overrides or [])


@app.command()
def evaluate(
    profile: Profile = DEFAULT_PROFILE,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="As `model.path`: a folder, `current`, OWNER/NAME, `embedded:shapes`."),
    ] = None,
    overrides: Overrides = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="Evaluate again even if the result is cached.")] = False,
    verbose: Verbose = False,
) -> None:
    """Evaluate one model on the held-out prompts."""
    from ospo import actions

    chosen = [] if model is None else [f"model.path={model}"]
    actions.run_evaluate(profile, [*(overrides or []), *chosen], refresh, verbose)


@app.command()
def benchmark(
    name: Annotated[str, typer.Argument(help="`t2i-compbench`, `geneval`, `dpg`, or prompts as `evaluation.prompts`.")],
    prompts: Annotated[
        str | None, typer.Option("--prompts", help="Where the benchmark's published prompts are: a folder or a file.")
    ] = None,
    profile: Profile = DEFAULT_PROFILE,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="As `model.path`: a folder, `current`, OWNER/NAME, `embedded:shapes`."),
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", help="Another model, likewise, to compare with by prompt and seed.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="New folder for the pictures, as the benchmark's own tools read them."),
    ] = None,
    overrides: Overrides = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="Score again even if the scores are cached.")] = False,
    verbose: Verbose = False,
) -> None:
    """Measure a model on a public benchmark, or on prompts of your own."""
    from ospo import benchmarks

    chosen = {"benchmark.name": name, "benchmark.prompts": prompts, "model.path": model}
    changes = [f"{option}={json.dumps(value)}" for option, value in chosen.items() if value is not None]
    benchmarks.run(profile, [*(overrides or []), *changes], against, out, refresh, verbose)


@app.command()
def report(profile: Profile = DEFAULT_PROFILE, overrides: Overrides = None) -> None:
    """Write the HTML report of a round from cached results, and show its summary."""
    from ospo import actions

    actions.write_report(profile, overrides or [])


@app.command()
def lineage(
    checkpoint: Annotated[str, typer.Argument(help="`current`, or the first digits of a trained model's digest.")],
    profile: Profile = DEFAULT_PROFILE,
    overrides: Overrides = None,
) -> None:
    """Trace a checkpoint to its pairs, pictures, prompts and parents."""
    from ospo import actions

    actions.show_lineage(checkpoint, profile, overrides or [])


@app.command()
def cost(profile: Profile = DEFAULT_PROFILE, overrides: Overrides = None) -> None:
    """Show the time spent on all results in the storage, by stage and by trained model."""
    from ospo import actions

    actions.show_cost(profile, overrides or [])


@app.command()
def rounds(profile: Profile = DEFAULT_PROFILE, overrides: Overrides = None) -> None:
    """List the rounds in the storage and the state of their stages."""
    from ospo import actions

    actions.show_rounds(profile, overrides or [])


@app.command()
def browse(
    profile: Profile = DEFAULT_PROFILE,
    overrides: Overrides = None,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port on this machine; 0: any that is free.")
    ] = 8350,
) -> None:
    """Look at everything in the storage in a local web page, and judge held-out pictures blind."""
    from ospo.browse.serve import serve

    serve(profile, overrides or [], port)


@app.command()
def labels(profile: Profile = DEFAULT_PROFILE, overrides: Overrides = None) -> None:
    """Show what people answered in `ospo browse`: the win rate, how good the judge is, how many labels are missing."""
    from ospo import actions

    actions.show_labels(profile, overrides or [])


@app.command()
def backfill(
    stage: Annotated[StageName, typer.Argument(help="The stage to compute or recompute.")],
    round_: Annotated[
        str | None, typer.Option("--round", "-r", help="First digits of a round's id; default: the profile's round.")
    ] = None,
    where: Annotated[
        str, typer.Option("--where", "-w", help="Only some items: SQL over the prompts, e.g. \"category = 'layout'\".")
    ] = "",
    refresh: Annotated[bool, typer.Option("--refresh", help="Recompute the stage even if it is complete.")] = False,
    cascade: Annotated[
        bool, typer.Option("--cascade", help="Also recompute the later stages that are then out of date.")
    ] = False,
    change: Annotated[
        list[str] | None,
        typer.Option("--change", metavar="SECTION.OPTION=VALUE", help="Change an option for this stage only."),
    ] = None,
    profile: Profile = DEFAULT_PROFILE,
    overrides: Overrides = None,
    verbose: Verbose = False,
) -> None:
    """Recompute a stage or selected items as a new attempt. Published results are kept."""
    from ospo import actions

    actions.run_backfill(profile, overrides or [], stage, round_, where, refresh, cascade, change or [], verbose)


@app.command()
def gc(
    delete: Annotated[bool, typer.Option("--delete", help="Delete what is found; otherwise it is only shown.")] = False,
    keep_hours: Annotated[
        float, typer.Option("--keep-hours", min=0, help="Keep what was written less than this many hours ago.")
    ] = 24.0,
    forget: Annotated[
        list[str] | None, typer.Option("--forget", help="First digits of a round whose record is deleted too.")
    ] = None,
    profile: Profile = DEFAULT_PROFILE,
    overrides: Overrides = None,
) -> None:
    """Show or delete what no round in the storage refers to."""
    from ospo import actions

    actions.collect_garbage(profile, overrides or [], forget or [], keep_hours, delete)


@app.command()
def deploy(
    file: Annotated[
        Path | None, typer.Option("--file", help="A prefect.yaml; default: the shipped deployments/prefect.yaml.")
    ] = None,
    home: Annotated[
        Path | None,
        typer.Option("--home", help="Folder in which workers run; default: OSPO_HOME, or the current folder."),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Only check the file's keys; needs no server.")] = False,
) -> None:
    """Register work pools, deployments and the crash automation on the Prefect server of PREFECT_API_URL."""
    from ospo import deploy as actions

    actions.deploy(file, home, check)


@shapes.command()
def pretrain(
    out: OutFolder,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Steps; default: the published recipe.")] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Resume from the last checkpoint in --out.")] = False,
    compiled: Annotated[
        bool, typer.Option("--compiled", help="Compile the model: a third faster, needs a C++ compiler.")
    ] = False,
) -> None:
    """Train the embedded model from scratch."""
    from ospo_core.shapes.pretraining import commands

    typer.echo(f"Written to {commands.pretrain(out, steps, device, resume, compiled)}")


@shapes.command()
def measure(
    model: ModelFolder = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Number of pictures.")] = 600,
) -> None:
    """Measure how well a model draws and judges, against the oracle."""
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
    n: Annotated[int, typer.Option("--n", min=1, help="Number of pictures.")] = 8,
    guidance: Annotated[float, typer.Option("--guidance", min=0, help="Scale of classifier-free guidance.")] = 1.0,
) -> None:
    """Draw pictures of a prompt."""
    from ospo_core.shapes.pretraining import commands

    typer.echo(f"Written to {commands.draw(prompt, out, model, n, guidance)}")


@models.command("check")
def check_model(
    model: Annotated[
        str, typer.Argument(help="A folder, OWNER/NAME of the Hugging Face Hub (downloaded), or `embedded:shapes`.")
    ],
) -> None:
    """Check a checkpoint as a round does before it starts, and show what it is."""
    from ospo_core.models.facts import model_facts
    from ospo_core.models.locate import resolve_model

    for name, value in model_facts(resolve_model(model)).items():
        typer.echo(f"{name:<16} {value}")


@models.command("convert")
def convert_model(
    source: Annotated[Path, typer.Argument(help="Folder with a Janus checkpoint as DeepSeek publishes it.")],
    out: Annotated[Path, typer.Argument(help="New folder for the checkpoint in the layout of transformers.")],
) -> None:
    """Convert another layout to that of transformers. Pickled tensors are read without running code in the file."""
    from ospo_core.models import locate

    typer.echo(f"Written to {locate.convert_model(source, out)}")


@experiments.command("run")
def run_experiment(
    name: Annotated[str, typer.Argument(help="A shipped experiment, or the path of a folder with `experiment.yaml`.")],
    out: OutFolder = Path("results"),
    overrides: Overrides = None,
    verbose: Verbose = False,
) -> None:
    """Train and evaluate every arm with every seed, and write the tables. Cached results are not recomputed."""
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
