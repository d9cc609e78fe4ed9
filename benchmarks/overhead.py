"""What Prefect adds to a round, and what a round costs if every stage is cached.

    ospo round
    python -m benchmarks.overhead --root runs/shapes

*Share*: the stages of the finished round are replayed (`benchmarks.replay`), alternately without Prefect and through
the flow, each time into a new folder. The difference is Prefect's; it is compared with the time that the round took
according to its manifests. *Cached*: the finished round is run again in its own process, timed after the imports.
Nothing is written below the given root: the round is copied first.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.measuring import Clock
from benchmarks.replay import finished_round, replayed
from flows.prefect_server import configure_prefect, start_server
from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.config import RoundConfig, load_profile
from ospo_core.rounds.round import Round
from ospo_core.schema import StageName
from ospo_core.stages import STAGES, Stage, StageRun, run_stage
from ospo_core.stages.model_ref import ModelRef, starting_model
from ospo_core.stages.resources import Resources

SHARE, CACHED_SECONDS = 0.03, 5.0
"""The largest share that Prefect may add to a round, and the seconds a cached round may take after imports."""


def share(config: RoundConfig, folder: Path, repeats: int) -> dict[str, Any]:
    """Replay the round without and with Prefect; return the seconds of each replay and the task runs per round."""
    source = Storage(config.storage.root)
    model = starting_model(config, source)
    manifests = finished_round(config, source, model)
    took: dict[str, list[Clock]] = {"server": [Clock()], "direct": [], "flow": []}
    with took["server"][0].running():
        start_server()
    from flows.round import self_improvement_round

    task_runs = 0
    with _stages(replayed(source, manifests)):
        for number in range(repeats + 1):  # the first repeat does not count: imports, first use of files
            for way in ("direct", "flow"):
                root = folder / f"{way}-{number}"
                again = _at(config, root)
                took[way].append(Clock())
                with took[way][-1].running():
                    if way == "direct":
                        _run_directly(again, model)
                    else:
                        self_improvement_round(again, until=StageName.TRAINING)
                shutil.rmtree(root)
        task_runs = _task_runs()
    figures = {way: [(clock.wall, clock.cpu) for clock in clocks] for way, clocks in took.items()}
    first = {"first flow": figures["flow"][:1], "server": figures["server"]}
    counted = {way: figures[way][1:] for way in ("direct", "flow")}
    work = sum(manifest.seconds for manifest in manifests.values())
    return {"seconds": {**first, **counted}, "task_runs": task_runs, "work": work}


def cached(config: RoundConfig) -> dict[str, float]:
    """Run the round again in this process, which has imported everything; return the seconds per step."""
    from flows import round as flow
    from flows import steps

    times: dict[str, Clock] = {}
    with _clock(times, "server"):
        start_server()
    for module, name in ((flow, "open_round"), (flow, "apply_decision"), (flow, "report"), (steps, "look_up")):
        setattr(module, name, _Timed(name, getattr(module, name), times))
    with _clock(times, "all of the flow"):
        result = flow.self_improvement_round(config)
    if result.ran:
        raise SystemExit(f"not cached: {', '.join(result.ran)}")
    return {name: clock.wall for name, clock in times.items()} | {
        "processor, all": sum(times[name].cpu for name in ("server", "all of the flow"))
    }


class _Timed:
    """A task whose calls are timed under its name and, if it has one, the name of its stage."""

    def __init__(self, name: str, task: Callable[..., Any], times: dict[str, Clock]) -> None:
        self._name, self._task, self._times = name, task, times

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        stage = args[0].stage.name if args and isinstance(args[0], StageRun) else ""
        with _clock(self._times, " ".join(part for part in (self._name, stage) if part)):
            return self._task(*args, **kwargs)


@contextmanager
def _clock(times: dict[str, Clock], name: str) -> Iterator[None]:
    """Time the block under a name."""
    with times.setdefault(name, Clock()).running():
        yield


@contextmanager
def _stages(others: Mapping[StageName, Stage]) -> Iterator[None]:
    """Replace stages of the round while the block runs."""
    kept = dict(STAGES)
    STAGES.update(others)
    try:
        yield
    finally:
        STAGES.update(kept)


def _run_directly(config: RoundConfig, model: ModelRef) -> None:
    """Run the stages up to training in this process, without Prefect."""
    round = Round(config, Storage(config.storage.root), model, resources=Resources())
    round.storage.check_writable()
    starting_model(config, round.storage)
    manifests: dict[StageName, Manifest] = {}
    for name in round.stages:
        manifests[name], _ = run_stage(round.bind(name, manifests))
        if name is StageName.TRAINING:
            break


def _task_runs() -> int:
    """Return the number of task runs of the last flow run."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.client.schemas.sorting import FlowRunSort

    with get_client(sync_client=True) as client:
        [last] = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)
        return len(client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[last.id]))))


def _at(config: RoundConfig, root: Path) -> RoundConfig:
    """Return the configuration with another storage root."""
    return config.model_copy(update={"storage": config.storage.model_copy(update={"root": str(root)})})


def copied(root: str, folder: Path) -> str:
    """Copy a storage, with hard links if possible: later writes replace files and never change them."""
    try:
        shutil.copytree(root, folder, copy_function=os.link)
    except (OSError, shutil.Error):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(root, folder)
    return str(folder)


def apart(config: RoundConfig, what: str, folder: Path, repeats: int) -> Any:
    """Measure in a separate process; the Prefect database exists from the second call on."""
    job = {"what": what, "config": config.model_dump(mode="json"), "folder": str(folder), "repeats": repeats}
    environment = {**os.environ, "PREFECT_HOME": str(folder / "prefect")}
    command = [sys.executable, "-m", "benchmarks.overhead", "--job"]
    cwd = Path(__file__).resolve().parent.parent
    given = json.dumps(job)
    done = subprocess.run(command, input=given, stdout=subprocess.PIPE, text=True, check=True, cwd=cwd, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def run_job(text: str) -> None:
    """Measure in this process, and write the figures as one line of JSON."""
    job = json.loads(text)
    config = RoundConfig.model_validate(job["config"])
    configure_prefect(Path(job["folder"]))
    came_out = share(config, Path(job["folder"]), job["repeats"]) if job["what"] == "share" else cached(config)
    sys.stdout.write("\n" + json.dumps(came_out) + "\n")


def show_share(figures: Mapping[str, Any], console: Console) -> None:
    """Print what Prefect adds."""
    table = Table("Replay", "Times", "Wall, median", "Wall, range", "CPU without server")
    medians: dict[str, float] = {}
    for way, times in figures["seconds"].items():
        wall, cpu = zip(*times, strict=True)
        medians[way] = statistics.median(wall)
        table.add_row(way, str(len(wall)), f"{medians[way]:.2f} s", _range(wall), f"{statistics.median(cpu):.2f} s")
    console.print(table)
    added, work = medians["flow"] - medians["direct"], figures["work"]
    once = medians["server"] + medians["first flow"] - medians["flow"]
    console.print(f"The round took {work:.0f} s of work and has {figures['task_runs']} task runs up to training.")
    console.print(f"The flow adds {added:.2f} s, {added / work:.2%} of it (at most {SHARE:.0%}).")
    console.print(f"The server and its first use add {once:.2f} s more, {(added + once) / work:.2%} together.")


def show_cached(runs: Sequence[Mapping[str, float]], console: Console) -> None:
    """Print the time of each step of a cached round."""
    table = Table("Cached round, after imports", "Median", "Range")
    for name in runs[0]:
        values = [run[name] for run in runs]
        table.add_row(name, f"{statistics.median(values):.2f} s", _range(values))
    totals = [run["server"] + run["all of the flow"] for run in runs]
    table.add_row("all", f"{statistics.median(totals):.2f} s", f"{_range(totals)} (at most {CACHED_SECONDS:.0f} s)")
    console.print(table)


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f} s"


def main() -> None:
    """Measure according to the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="shapes", help="profile of the finished round")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.OPTION=VALUE", help="its overrides")
    parser.add_argument("--root", default="runs/shapes", help="storage of the finished round (only read)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=("share", "cached"))
    parser.add_argument("--job", action="store_true", help="measure in this process, as standard input says")
    options = parser.parse_args()
    if options.job:
        run_job(sys.stdin.read())
        return
    config, console = load_profile(options.profile, options.set), Console()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = _at(config, Path(copied(options.root, folder / "store")))
        if options.only != "share":
            runs = [apart(config, "cached", folder, 1) for _ in range(options.repeats + 1)]
            console.print(f"Server that must create its database first: {runs[0]['server']:.2f} s")
            show_cached(runs[1:], console)
        if options.only != "cached":
            show_share(apart(config, "share", folder, options.repeats), console)


if __name__ == "__main__":
    main()
