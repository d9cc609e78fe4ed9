"""Real processes of a round: a Prefect server, the command line, a worker with its flow run; and ways to kill them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import httpx
import psutil

ROOT = Path(__file__).resolve().parents[2]
POOL = "chaos"
_FLOW = "flows/round.py:self_improvement_round"
_SERVER_START_S, _STATE_EVERY_S = 240.0, 0.5
_TRAINING = "ospo_core.training.run"
_FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


class Run(Protocol):
    """A round computed by its own processes."""

    def is_running(self) -> bool:
        """Return whether the round is still being computed."""

    def kill(self, whole: bool) -> None:
        """Kill its process (SIGKILL); with `whole`, also the processes it started in other process groups."""

    def finish(self, seconds: float) -> bool:
        """Wait for the end, at most `seconds`, and return whether the round succeeded."""


def training_processes(scratch: Path) -> list[psutil.Process]:
    """Return the training processes whose files are below `scratch`."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if _TRAINING in words and any(word.startswith(f"{scratch}/") for word in words):
            found.append(process)
    return found


def kill_all(processes: list[psutil.Process]) -> None:
    """Kill processes simultaneously (SIGSTOP first, so that none sees another end) and wait until they have ended."""
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for process in processes:
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue
    psutil.wait_procs(processes, timeout=60)


class CommandRun:
    """`ospo round`, in its own process group.

    Args:
        profile: the round's profile; output is appended beside it.
        environment: of the process.
    """

    def __init__(self, profile: Path, environment: dict[str, str]) -> None:
        command = [sys.executable, "-m", "ospo", "round", "--profile", str(profile)]
        self._process = _start(command, environment, profile.with_suffix(".log"))

    def is_running(self) -> bool:
        """Return whether the command has not ended."""
        return self._process.poll() is None

    def kill(self, whole: bool) -> None:
        """Kill the command's process; with `whole`, also everything it started."""
        runner = psutil.Process(self._process.pid)
        kill_all([runner, *(runner.children(recursive=True) if whole else [])])
        self._process.wait()

    def finish(self, seconds: float) -> bool:
        """Wait for the command to end and return whether its exit code was 0."""
        return self._process.wait(seconds) == 0


class WorkerRun:
    """A run of the deployment by its own worker.

    Args:
        deployment: `flow/name`.
        config: the round's configuration, JSON.
        environment: of the worker.
        log: file that its output is appended to.
    """

    def __init__(self, deployment: str, config: dict[str, Any], environment: dict[str, str], log: Path) -> None:
        from prefect.deployments import run_deployment

        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process"]
        self._worker = _start(command, environment, log)
        run: Any = run_deployment(deployment, parameters={"config": config}, timeout=0)
        self._run: UUID = run.id
        self._state, self._asked = "", 0.0

    def is_running(self) -> bool:
        """Return whether the flow run has not ended; asks the server at most twice per second."""
        if time.monotonic() - self._asked > _STATE_EVERY_S:
            from prefect.client.orchestration import get_client

            with get_client(sync_client=True) as client:
                state = client.read_flow_run(self._run).state
            self._state, self._asked = state.type.value if state else "", time.monotonic()
        return self._state not in _FINAL and self._worker.poll() is None

    def kill(self, whole: bool) -> None:
        """Kill the worker and the flow run's process together; with `whole`, also the training process."""
        worker = psutil.Process(self._worker.pid)
        children = worker.children(recursive=True)
        kill_all([worker, *(child for child in children if whole or not _is_training(child))])
        self._worker.wait()

    def finish(self, seconds: float) -> bool:
        """Wait for the flow run to end, stop the worker, and return whether the run completed."""
        deadline = time.monotonic() + seconds
        while self.is_running() and time.monotonic() < deadline:
            time.sleep(_STATE_EVERY_S)
        if self._worker.poll() is None:
            self._worker.terminate()
            self._worker.wait(120)
        return self._state == "COMPLETED"


def _is_training(process: psutil.Process) -> bool:
    try:
        return _TRAINING in process.cmdline()
    except psutil.NoSuchProcess:
        return False


@dataclass(frozen=True)
class Server:
    """A Prefect server with a deployment of the round: its address, and the environment of processes that use it."""

    api: str
    deployment: str
    environment: dict[str, str]


@contextmanager
def prefect_server(folder: Path) -> Iterator[Server]:
    """Run a Prefect server with its database in `folder`, a work pool and a deployment, while the block runs.

    Raises:
        RuntimeError: it did not answer in time; see `server.log` in the folder.
    """
    port = _free_port()
    api = f"http://127.0.0.1:{port}/api"
    environment = {**os.environ, **_settings(folder, api)}
    os.environ.update(_settings(folder, api))
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    server = _start(command, environment, folder / "server.log")
    try:
        _wait_for(f"{api}/health", server)
        yield Server(api, _deploy(), environment)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


def _settings(folder: Path, api: str) -> dict[str, str]:
    """Return the environment of all processes that use the server; one thread each, so that sums are the same."""
    return {
        "PREFECT_API_URL": api,
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_MEMO_STORE_PATH": str(folder / "prefect" / "memo.toml"),
        "PREFECT_RESULTS_LOCAL_STORAGE_PATH": str(folder / "prefect" / "results"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
        "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "60",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }


def _deploy() -> str:
    """Create a work pool and a deployment of the round in it; return the deployment's name."""
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate

    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
    source: Any = flow.from_source(source=str(ROOT), entrypoint=_FLOW)
    source.to_deployment(name=POOL).apply(work_pool_name=POOL)
    return f"{source.name}/{POOL}"


def _start(command: list[str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start a process as leader of its own group, with its output appended to a log."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
        )


def _wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    """Wait until the server answers."""
    deadline = time.monotonic() + _SERVER_START_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if httpx.get(address, timeout=5).is_success:
                return
        except httpx.HTTPError:
            time.sleep(0.2)
    raise RuntimeError(f"the Prefect server did not answer at {address}")


def _free_port() -> int:
    """Return a port of loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
