"""Kill real rounds at random moments, start them again, and count how many end with an undisturbed round's digests.

    python -m tests.manual.chaos --kills 50 --seed 0
    python -m tests.manual.chaos --kills 50 --seed 1 --s3-faults 0.1

The real command line or a real Prefect worker runs a round of a tiny model. A kill (SIGKILL) hits the round's process,
that and its training process together, the training process alone, or a worker with its flow run. A kill is survived if
the round, started again, completes with the digests of an undisturbed round for every stage and for the trained model,
everything published verifies, no unnamed file exists, and no training process is left. With `--s3-faults` the storage
is a real S3-compatible server behind a proxy that breaks this share of all requests.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

import s3fs
import typer

from ospo_core.artifacts.storage import Storage
from ospo_core.config import RoundConfig
from tests.manual.chaos_aims import PHASES, Aim, aims, timeline_of
from tests.manual.chaos_runs import Server, prefect_server
from tests.manual.chaos_trial import Kill, Outcome, Trial, outcome_of
from tests.support.fault_proxy import FaultProxy, fault_proxy, seeded
from tests.support.rounds import small_round
from tests.support.s3_server import ACCESS_KEY, SECRET_KEY, s3_server
from tests.support.scripted_text import scripted_server
from tests.support.tiny_janus import make_tiny_janus

KILLS_PER_TRIAL = 3
_BUCKET = "chaos"
TRAINING = {"steps": 40, "batch_size": 2, "accumulation": 1, "checkpoint_every": 5, "lora": {"rank": 2, "alpha": 4}}


def main(
    kills: Annotated[int, typer.Option(min=1, help="Total number of kills.")] = 50,
    seed: Annotated[int, typer.Option(help="Seed of victims and times.")] = 0,
    s3_faults: Annotated[
        float | None, typer.Option(min=0.0, max=0.5, help="Store on S3, and break this share of all requests.")
    ] = None,
    keep: Annotated[bool, typer.Option(help="Keep the folders of trials that failed.")] = True,
) -> None:
    """Kill rounds of a tiny model and report how many kills were survived."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    with ExitStack() as stack:
        place = Place(folder) if s3_faults is None else stack.enter_context(faulty_s3(folder, seed, s3_faults))
        address = stack.enter_context(scripted_server())
        server = stack.enter_context(prefect_server(folder))
        make_tiny_janus(folder / "model")
        survived, struck = _trials(folder, address, server, kills, seed, place)
    say("\n".join(summary(struck, survived)))
    if keep and len(survived) < len(struck):
        say(f"logs: {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    raise typer.Exit(0 if len(survived) == len(struck) else 1)


@dataclass(frozen=True)
class Place:
    """Where rounds are stored.

    Args:
        folder: holds local storage and all scratch folders.
        proxy: what rounds take for their S3 server; None for local storage.
        behind: address of the server behind the proxy.
    """

    folder: Path
    proxy: FaultProxy | None = None
    behind: str | None = None

    def storage(self, name: str) -> dict[str, str | None]:
        """Return the storage section of the round `name`."""
        scratch = str(self.folder / f"{name}-scratch")
        if self.proxy is None:
            return {"root": str(self.folder / name), "scratch": scratch}
        return {"root": f"s3://{_BUCKET}/{name}", "scratch": scratch, "endpoint_url": self.proxy.endpoint_url}

    def undisturbed(self, config: RoundConfig) -> Storage:
        """Return a round's storage without the proxy."""
        return Storage(config.storage.root, self.behind if config.storage.endpoint_url else None)


@contextmanager
def faulty_s3(folder: Path, seed: int, share: float) -> Iterator[Place]:
    """Run an S3 server and a proxy in front of it that breaks `share` of all requests, while the block runs."""
    os.environ.update(AWS_ACCESS_KEY_ID=ACCESS_KEY, AWS_SECRET_ACCESS_KEY=SECRET_KEY, AWS_DEFAULT_REGION="us-east-1")
    with s3_server(folder / "s3") as server, fault_proxy(server.endpoint_url, seeded(seed, share)) as proxy:
        s3fs.S3FileSystem(endpoint_url=server.endpoint_url, skip_instance_cache=True).mkdir(_BUCKET)
        yield Place(folder, proxy, server.endpoint_url)
        say(f"{proxy.injected.total()} of {proxy.requests} requests were broken: {dict(proxy.injected)}")


def _trials(
    folder: Path, address: str, server: Server, kills: int, seed: int, place: Place
) -> tuple[list[Kill], list[Kill]]:
    """Run trials until `kills` kills have happened; return the survived kills, and all kills."""
    began = time.monotonic()
    config = a_round(folder, Place(folder).storage("calm"), address)
    calm = Trial(config, Storage(config.storage.root), server, folder / "calm-log")
    calm.run([])
    expected, faults = outcome_of(calm.config, calm.storage)
    if calm.faults or faults:
        raise RuntimeError(f"the undisturbed round failed: {[*calm.faults, *faults]}, see {folder}")
    say(f"an undisturbed round took {time.monotonic() - began:.0f} s")
    survived: list[Kill] = []
    struck: list[Kill] = []
    deck = aims(timeline_of(calm.storage), seed)
    number = 0
    while len(struck) < kills:
        number += 1
        wanted = sorted(islice(deck, min(KILLS_PER_TRIAL, kills - len(struck))), key=lambda aim: aim.order)
        config = a_round(folder, place.storage(f"trial-{number}"), address)
        trial = Trial(config, place.undisturbed(config), server, folder / f"trial-{number}-log")
        faults = _outcome(trial, wanted, expected)
        for kill in trial.kills:
            struck.append(kill)
            survived += [] if faults else [kill]
            say(f"{len(struck):3}  {'LOST: ' + '; '.join(faults) if faults else 'survived'}  {kill}")
        if not faults:
            for stage in {key.split("/")[0] for key in trial.storage.list()}:
                trial.storage.delete_folder(stage)
            for left in (trial.scratch, trial.folder):
                shutil.rmtree(left, ignore_errors=True)
    return survived, struck


def _outcome(trial: Trial, wanted: list[Aim], expected: Outcome) -> list[str]:
    """Run a trial and return what is wrong with its result."""
    trial.run(wanted)
    found, faults = outcome_of(trial.config, trial.storage)
    differing = [name for name, digest in expected.stages.items() if found.stages.get(name) != digest]
    faults += [f"other digests of {', '.join(differing)}"] if differing else []
    faults += ["another model was trained"] if found.model != expected.model else []
    faults += ["another model is current"] if found.current != expected.current else []
    return [*trial.faults, *faults]


def a_round(folder: Path, storage: dict[str, str | None], address: str) -> RoundConfig:
    """Return a round of eight prompts with its own storage and scratch folders."""
    engine = {"kind": "endpoint", "base_url": address, "served_model": "rules"}
    return small_round(folder, storage=storage, engine=engine, training=TRAINING)


def summary(struck: list[Kill], survived: list[Kill]) -> Iterator[str]:
    """Yield the lines of the outcome: kills survived, in total, by victim and by phase."""
    yield f"survived {len(survived)}/{len(struck)}"
    for title, name_of in (("by victim", lambda kill: kill.aim.victim), ("by phase", lambda kill: kill.phase)):
        all_of, good = Counter(map(name_of, struck)), Counter(map(name_of, survived))
        names = [name for name in (*PHASES, "all", "runner", "worker") if name in all_of]
        yield f"{title}: " + ", ".join(f"{name} {good[name]}/{all_of[name]}" for name in names)


def say(line: str) -> None:
    """Write one line and flush it."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    typer.run(main)
