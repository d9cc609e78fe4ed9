"""Small deployments for the operations tests and `tests/manual/operations.py`, and what to look at while they run."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

from ospo_core.config import RoundConfig
from tests.support.prefect_stack import CPU_POOL, GPU_POOL, Stack, command_of, descendants
from tests.support.rounds import small_round

SPARE_POOL = "ospo-spare"
SCHEDULED, LONG = "nightly-round/small", "self-improvement-round/long"
REMOTE, CRASHING = "self-improvement-round/remote", "self-improvement-round/crashing"
ONE_AT_A_TIME = {"limit": 1, "collision_strategy": "CANCEL_NEW"}
BACKFILL, TRAINING = "backfill/long", "train/small"
LONG_STEPS = 100
CRASHING_STEPS = 30
_ROUND = "flows.round.self_improvement_round"
_RESUMED = re.compile(r"pairs, step (\d+) of \d+")


@dataclass(frozen=True)
class Rounds:
    """The configurations of the deployments.

    Attributes:
        file: the file of deployments.
        small: fired by a schedule; its training is in the GPU pool.
        long: trains long enough to be cancelled.
        remote: the same round with another training, in the GPU pool.
        crashing: trains long enough to be killed.
    """

    file: Path
    small: RoundConfig
    long: RoundConfig
    remote: RoundConfig
    crashing: RoundConfig


def write_deployments(folder: Path, engine: str, interval: float = 15.0) -> Rounds:
    """Write a file of deployments of tiny rounds of the embedded model.

    Args:
        folder: for the file, storages and scratch folders.
        engine: address of the text engine's endpoint.
        interval: seconds between scheduled runs.
    """
    elsewhere = {"training_deployment": TRAINING}
    small = _round(folder, engine, "small", {"steps": 2}, execution=elsewhere)
    long = _round(folder, engine, "long", {"steps": LONG_STEPS})
    storage = long.storage.model_dump()
    remote = _round(folder, engine, "remote", {"steps": LONG_STEPS + 1}, execution=elsewhere, storage=storage)
    crashing = _round(folder, engine, "crashing", {"steps": CRASHING_STEPS, "checkpoint_every": 5})
    nightly = _entry(SCHEDULED, "flows.improve.nightly_round", CPU_POOL, small)
    nightly["schedules"] = [{"slug": "often", "interval": interval}]
    document = {
        "work_pools": [{"name": CPU_POOL}, {"name": GPU_POOL, "concurrency_limit": 1}, {"name": SPARE_POOL}],
        "pull": [{"prefect.deployments.steps.set_working_directory": {"directory": str(folder)}}],
        "deployments": [
            nightly,
            _entry(TRAINING, "flows.train.train", GPU_POOL, small),
            _entry(LONG, _ROUND, CPU_POOL, long),
            _entry(REMOTE, _ROUND, CPU_POOL, remote),
            _entry(CRASHING, _ROUND, SPARE_POOL, crashing),
            _entry(BACKFILL, "flows.backfill.backfill", CPU_POOL, long),
        ],
    }
    file = folder / "deployments.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return Rounds(file, small, long, remote, crashing)


def _round(folder: Path, engine: str, name: str, training: dict[str, Any], **sections: Any) -> RoundConfig:
    """Return a small round whose longest part is its training; a checkpoint is written when it is stopped."""
    return small_round(
        folder,
        **{
            "name": name,
            "storage": {"root": str(folder / name / "store"), "scratch": str(folder / name / "scratch")},
            "model": {"path": "embedded:shapes", "device": "cpu"},
            "engine": {"kind": "endpoint", "base_url": engine, "served_model": "rules"},
            "training": {"batch_size": 4, "accumulation": 2, "checkpoint_every": 1000, **training},
            **sections,
        },
    )


def _entry(name: str, entrypoint: str, pool: str, config: RoundConfig) -> dict[str, Any]:
    parameters = {"config": config.model_dump(mode="json")}
    return {
        "name": name.partition("/")[2],
        "entrypoint": entrypoint,
        "work_pool": {"name": pool},
        "parameters": parameters,
        "concurrency_limit": ONE_AT_A_TIME,
    }


def end_schedule(stack: Stack, seconds: float) -> None:
    """Wait until the schedule has started a run, then end it, so that it starts no others beside what follows."""
    stack.wait_for(
        "a run of the schedule", lambda: [run for run in stack.runs_of(SCHEDULED) if run.start_time], seconds
    )
    found = stack.client.read_deployment_by_name(SCHEDULED)
    stack.client.update_deployment_schedule(found.id, found.schedules[0].id, active=False)


def training_processes(stack: Stack, worker: str) -> list[int]:
    """Return the training processes that a worker's flow runs have started."""
    family = descendants(stack.workers[worker].pid)
    return [pid for pid in family if "ospo_core.training.run" in command_of(pid)]


def training_folder(config: RoundConfig) -> Path | None:
    """Return the scratch folder of a round's only training, if it has begun."""
    folders = [path.parent for path in Path(config.storage.scratch).glob("training/*/job.json")]
    return folders[0] if folders else None


def steps_made(config: RoundConfig) -> int:
    """Return how many steps a round's running training has reported."""
    folder = training_folder(config)
    file = folder / "metrics.jsonl" if folder else None
    return len(file.read_text(encoding="utf-8").splitlines()) if file and file.exists() else 0


def checkpoint_steps(config: RoundConfig) -> list[int]:
    """Return the steps of the checkpoints in a round's scratch folder."""
    folder = training_folder(config)
    states = sorted(folder.glob("checkpoints/step-*/state.json")) if folder else []
    return [int(json.loads(state.read_text(encoding="utf-8"))["step"]) for state in states]


def attempts_at(config: RoundConfig, stage: str) -> int:
    """Return how many results of a stage a round's storage holds."""
    return len(list(Path(config.storage.root).glob(f"{stage}/**/manifest.json")))


def resumed_from(config: RoundConfig) -> list[int]:
    """Return the steps at which the processes of a round's training took over, as its log has them."""
    folder = training_folder(config)
    log = folder / "train.log" if folder else None
    return [int(step) for step in _RESUMED.findall(log.read_text(encoding="utf-8"))] if log and log.exists() else []


def task_states(client: SyncPrefectClient, run: UUID, attempt: int) -> Counter[str]:
    """Return how many task runs of one attempt of a flow run are in each state, by the state's name."""
    tasks = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run])), limit=200)
    return Counter(str(task.state.name) for task in tasks if task.state and task.flow_run_run_count == attempt)
