"""One trial: a round that is killed several times, started again until it completes, and then compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.chaos_aims import Aim, running_phase
from benchmarks.chaos_runs import CommandRun, Run, Server, WorkerRun, kill_all, training_processes
from ospo_core.artifacts.manifest import Manifest, load_manifest
from ospo_core.artifacts.shards import load_shard_entry
from ospo_core.artifacts.storage import Storage
from ospo_core.config import RoundConfig
from ospo_core.errors import OspoError
from ospo_core.rounds.plan import plan_round, report_key
from ospo_core.schema import StageName
from ospo_core.stages.model_ref import current_model, starting_model
from ospo_core.stages.run import content_of

_LIMIT_S, _LOOK_S, _ORPHAN_S = 600.0, 0.002, 30.0


@dataclass(frozen=True)
class Kill:
    """One kill that struck: what it was aimed at, and the phase that was running."""

    aim: Aim
    phase: str

    def __str__(self) -> str:
        """Return the kill in words."""
        return f"{self.aim.victim} during {self.phase}, {self.aim.delay:.2f} s after {self.aim.mark}"


@dataclass
class Trial:
    """A round and what became of it.

    Args:
        config: the round; storage and scratch are folders of this trial alone.
        server: Prefect's server.
        folder: where profile and logs go.
    """

    config: RoundConfig
    server: Server
    folder: Path
    kills: list[Kill] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    _run: Run | None = None

    @property
    def root(self) -> Path:
        """The storage."""
        return Path(self.config.storage.root)

    @property
    def scratch(self) -> Path:
        """The scratch folder."""
        return Path(self.config.storage.scratch)

    def run(self, aims: Sequence[Aim]) -> None:
        """Start the round, kill it at each of `aims` in order, starting it again, and let it finish at last."""
        try:
            for aim in aims:
                if not self._strike(self._run_for(aim), aim):
                    break
            if not (self._run or self._launch(self._by_worker())).finish(_LIMIT_S):
                self.faults.append(f"the round did not end well, see {self.folder}")
        finally:
            if self._run is not None and self._run.is_running():
                self._run.kill(whole=True)
        self._look_for_orphans()

    def _run_for(self, aim: Aim) -> Run:
        """Return the run that is to be killed: the one that is going on, or another of the kind that is wanted."""
        if self._run is not None and aim.victim == "worker" and not isinstance(self._run, WorkerRun):
            self._run.kill(whole=True)
            self._run = None
        return self._run or self._launch(aim.victim == "worker")

    def _by_worker(self) -> bool:
        """Return whether the last kill was of a worker, so that another worker is to take over."""
        return bool(self.kills) and self.kills[-1].aim.victim == "worker"

    def _launch(self, worker: bool) -> Run:
        """Start the round, by a worker or by the command line."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if worker:
            document = self.config.model_dump(mode="json")
            log = self.folder / "worker.log"
            self._run = WorkerRun(self.server.deployment, document, self.server.environment, log)
        else:
            profile = self.folder / "round.yaml"
            profile.write_text(self.config.model_dump_json(), encoding="utf-8")
            self._run = CommandRun(profile, self.server.environment)
        return self._run

    def _strike(self, run: Run, aim: Aim) -> bool:
        """Wait for the aim's moment and kill; return False where the round ended before it."""
        if not self._wait(run, lambda: aim.is_due(self.root, self.scratch)):
            return False
        moment = time.monotonic() + aim.delay
        if not self._wait(run, lambda: time.monotonic() >= moment):
            return False
        phase = running_phase(self.root)
        if aim.victim == "training":
            processes = training_processes(self.scratch)
            if not processes:
                return True
            kill_all(processes)
        else:
            run.kill(whole=aim.victim == "all")
            self._run = None
        self.kills.append(Kill(aim, phase))
        return True

    def _wait(self, run: Run, due: Callable[[], bool]) -> bool:
        """Wait until something is due; return False where the run ended before."""
        deadline = time.monotonic() + _LIMIT_S
        while not due():
            if not run.is_running() or time.monotonic() > deadline:
                return False
            time.sleep(_LOOK_S)
        return run.is_running()

    def _look_for_orphans(self) -> None:
        """Note training processes that are still there half a minute after the round's end, and end them."""
        deadline = time.monotonic() + _ORPHAN_S
        while (left := training_processes(self.scratch)) and time.monotonic() < deadline:
            time.sleep(0.1)
        if left:
            self.faults.append(f"training processes left behind: {[process.pid for process in left]}")
            kill_all(left)


@dataclass(frozen=True)
class Outcome:
    """What a round left: digests of its stages' content, of the trained model, and of the model that is current."""

    stages: dict[str, str]
    model: str
    current: str


def outcome_of(config: RoundConfig) -> tuple[Outcome, list[str]]:
    """Return what a finished round left, and what is wrong with it: missing, damaged, half-written or unnamed files."""
    storage = Storage(config.storage.root)
    plans, manifests = plan_round(config, storage, starting_model(config, storage))
    faults = [f"{plan.stage} is not done: {plan.status}" for plan in plans if plan.status != "cached"]
    for manifest in manifests.values():
        faults += damage(storage, manifest) + unnamed(storage, manifest)
    if not faults and not storage.exists(report_key(manifests)):
        faults.append("there is no report")
    pointer = current_model(storage)
    training = manifests.get(StageName.TRAINING)
    digests = {name.value: content_of(manifest) for name, manifest in manifests.items()}
    model = str(training.extra["model_digest"]) if training else ""
    return Outcome(digests, model, pointer.digest if pointer else ""), faults


def damage(storage: Storage, manifest: Manifest) -> list[str]:
    """Return what of a stage does not verify: its manifest, its rows, its entries."""
    try:
        load_manifest(storage, manifest.stage, manifest.fingerprint)
        for key in entries(storage, manifest):
            load_shard_entry(storage, manifest.prefix, Path(key).stem)
    except OspoError as error:
        return [str(error)]
    return []


def unnamed(storage: Storage, manifest: Manifest) -> list[str]:
    """Return the Parquet files of a stage that neither its manifest nor an entry names."""
    named = {entry.file for entry in manifest.shards}
    for key in entries(storage, manifest):
        found = load_shard_entry(storage, manifest.prefix, Path(key).stem)
        named |= {found.file} if found else set()
    files = [key for key in storage.list(manifest.prefix) if key.endswith(".parquet")]
    return [f"nothing names {key}" for key in files if Path(key).name not in named]


def entries(storage: Storage, manifest: Manifest) -> list[str]:
    """Return the keys of a stage's shard entries."""
    keys = [key for key in storage.list(manifest.prefix) if key.count("/") == 2 and key.endswith(".json")]
    return [key for key in keys if not key.endswith("/manifest.json")]
