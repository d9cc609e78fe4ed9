"""One trial: a round that is killed several times, started again until it completes, and then compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ospo_core.artifacts.storage import Storage
from ospo_core.config import RoundConfig
from ospo_core.rounds.plan import plan_round, report_key
from ospo_core.rounds.round import Round
from ospo_core.schema import StageName
from ospo_core.stages.model_ref import current_model, starting_model
from ospo_core.stages.run import content_of
from tests.manual.chaos_aims import Aim, running_phase
from tests.manual.chaos_runs import CommandRun, Run, Server, WorkerRun, kill_all, training_processes
from tests.support.verification import damage, unnamed

_LIMIT_S, _ORPHAN_S = 600.0, 30.0
_LOOK_S = {"file": 0.002, "s3": 0.05}


@dataclass(frozen=True)
class Kill:
    """One kill that happened: its aim, and the phase that was running."""

    aim: Aim
    phase: str

    def __str__(self) -> str:
        """Return the kill in words."""
        return f"{self.aim.victim} during {self.phase}, {self.aim.delay:.2f} s after {self.aim.mark}"


@dataclass
class Trial:
    """A round and what happened to it.

    Args:
        config: the round; no other trial uses its storage and scratch folders.
        storage: the round's storage, by a way that nothing disturbs.
        server: Prefect's server.
        folder: for the profile and the logs.
    """

    config: RoundConfig
    storage: Storage
    server: Server
    folder: Path
    kills: list[Kill] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    _run: Run | None = None

    @property
    def scratch(self) -> Path:
        """The scratch folder."""
        return Path(self.config.storage.scratch)

    def run(self, aims: Sequence[Aim]) -> None:
        """Start the round, kill it at each of `aims` in order and start it again, then let it finish."""
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
        """Return the run to kill: the current one, or a new one of the kind that the aim wants."""
        if self._run is not None and aim.victim == "worker" and not isinstance(self._run, WorkerRun):
            self._run.kill(whole=True)
            self._run = None
        return self._run or self._launch(aim.victim == "worker")

    def _by_worker(self) -> bool:
        """Return whether the last kill hit a worker, so that another worker takes over."""
        return bool(self.kills) and self.kills[-1].aim.victim == "worker"

    def _launch(self, worker: bool) -> Run:
        """Start the round with a worker or with the command line."""
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
        """Wait for the time of the aim and kill; return False if the round ended before."""
        if not self._wait(run, lambda: aim.is_due(self.storage, self.scratch)):
            return False
        moment = time.monotonic() + aim.delay
        if not self._wait(run, lambda: time.monotonic() >= moment):
            return False
        phase = running_phase(self.storage)
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
        """Wait until `due()`; return False if the run ended before."""
        deadline = time.monotonic() + _LIMIT_S
        while not due():
            if not run.is_running() or time.monotonic() > deadline:
                return False
            time.sleep(_LOOK_S[self.storage.protocol])
        return run.is_running()

    def _look_for_orphans(self) -> None:
        """Record training processes that still exist half a minute after the round's end, and kill them."""
        deadline = time.monotonic() + _ORPHAN_S
        while (left := training_processes(self.scratch)) and time.monotonic() < deadline:
            time.sleep(0.1)
        if left:
            self.faults.append(f"training processes left behind: {[process.pid for process in left]}")
            kill_all(left)


@dataclass(frozen=True)
class Outcome:
    """What a round produced: digests of its stages' content, of the trained model, and of the current model."""

    stages: dict[str, str]
    model: str
    current: str


def outcome_of(config: RoundConfig, storage: Storage) -> tuple[Outcome, list[str]]:
    """Return what a finished round produced, and its faults: missing, damaged, half-written or unnamed files."""
    plans, manifests = plan_round(Round(config, storage, starting_model(config, storage)))
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
