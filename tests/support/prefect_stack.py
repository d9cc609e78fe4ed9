"""A Prefect server and process workers as a team would run them: processes of their own, nothing shared with others.

All files of Prefect lie in one folder; ports are free ones. Workers are stopped before the server, and what
a worker has started is stopped with it. `tests/manual/operations.py` uses the same stack.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Cancelling

ROOT = Path(__file__).resolve().parents[2]
CPU_POOL, GPU_POOL = "ospo-cpu", "ospo-gpu"
START_TIMEOUT = 240.0
_TAIL = 6000
_SETTINGS = {
    "DO_NOT_TRACK": "1",
    "OMP_NUM_THREADS": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
    "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "60",
    "PREFECT_SERVER_SERVICES_FOREMAN_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
    "PREFECT_SERVER_SERVICES_SCHEDULER_MAX_RUNS": "3",
    "PREFECT_WORKER_QUERY_SECONDS": "2",
    "PREFECT_RUNNER_HEARTBEAT_FREQUENCY": "30",
    "PREFECT_CLI_COLORS": "false",
}

Value = TypeVar("Value")


@dataclass
class Stack:
    """A running server.

    Attributes:
        folder: where its files and all logs are.
        api: its address.
        environment: of every process that talks to it.
        client: for the tests themselves.
        workers: running workers by name.
    """

    folder: Path
    api: str
    environment: dict[str, str]
    client: SyncPrefectClient
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start_worker(self, name: str, pool: str) -> None:
        """Start a process worker of a pool, in a process group of its own."""
        command = ["-m", "prefect", "worker", "start", "--pool", pool, "--name", name, "--type", "process"]
        self.workers[name] = _spawn([*command, "--limit", "4"], self.environment, self.folder / f"{name}.log")

    def stop_worker(self, name: str) -> None:
        """Stop a worker as a service manager does; it stops its flow runs."""
        _stop(self.workers.pop(name), patience=60)

    def kill_worker(self, name: str) -> None:
        """Kill a worker and everything that it has started, at once."""
        process = self.workers.pop(name)
        family = [process.pid, *descendants(process.pid)]
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)  # so that none sees the other die
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()

    def ospo(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command line of this project against the server."""
        return self._run("ospo", *arguments)

    def prefect(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Prefect's command line against the server."""
        return self._run("prefect", "--no-prompt", *arguments)

    def _run(self, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", module, *arguments]
        environment = {**self.environment, "COLUMNS": "200"}
        return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=START_TIMEOUT)

    def start_run(self, deployment: str, **parameters: Any) -> FlowRun:
        """Start a run of a deployment, as the UI does."""
        identity = self.client.read_deployment_by_name(deployment).id
        return self.client.create_flow_run_from_deployment(identity, parameters=parameters)

    def runs_of(self, deployment: str) -> list[FlowRun]:
        """Return all runs of a deployment."""
        identity = self.client.read_deployment_by_name(deployment).id
        return self.client.read_flow_runs(deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[identity])))

    def cancel(self, run: UUID) -> None:
        """Ask for the end of a run, as the UI does."""
        self.client.set_flow_run_state(run, Cancelling())

    def retry(self, run: UUID) -> None:
        """Run what has ended again, as a person does.

        Raises:
            AssertionError: the server refuses it.
        """
        done = self.prefect("flow-run", "retry", str(run))
        if done.returncode:
            raise AssertionError(f"no retry of run {run}: {done.stdout}{done.stderr}")

    def state_of(self, run: UUID) -> StateType | None:
        """Return the state of a run."""
        state = self.client.read_flow_run(run).state
        return state.type if state else None

    def wait_for_end(self, run: UUID, seconds: float) -> FlowRun:
        """Return a run when it has ended.

        Raises:
            AssertionError: it has not after so many seconds; the message ends with the logs.
        """

        def ended() -> FlowRun | None:
            found = self.client.read_flow_run(run)
            return found if found.state and found.state.is_final() else None

        return self.wait_for(f"the end of run {run}", ended, seconds)

    def wait_for(self, what: str, found: Callable[[], Value | None], seconds: float) -> Value:
        """Return what `found` returns once it is true; for errors see `wait_for_end`."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):  # a server that is busy is asked again
                value = found()
                if value:
                    return value
            time.sleep(0.2)
        raise AssertionError(f"waited {seconds:.0f} s in vain for {what}\n{self.logs()}")

    def logs(self) -> str:
        """Return the ends of all logs."""
        texts = [(path.name, path.read_text(errors="replace")[-_TAIL:]) for path in sorted(self.folder.glob("*.log"))]
        return "\n".join(f"--- {name}\n{text}" for name, text in texts)


@contextmanager
def prefect_stack(folder: Path, database_url: str | None = None) -> Iterator[Stack]:
    """Run a server in `folder` for as long as the block lasts; then stop its workers, then the server.

    Args:
        folder: for its files.
        database_url: address of its database; by default SQLite in `folder`. Only the server gets to know it.

    Raises:
        AssertionError: it does not answer; the message ends with its log.
    """
    home, port = folder / "prefect", _free_port()
    home.mkdir(parents=True)
    api = f"http://127.0.0.1:{port}/api"
    environment = _environment(home, api)
    command = ["-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    database = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": database_url} if database_url else {}
    server = _spawn(command, {**environment, **database}, folder / "server.log")
    try:
        with SyncPrefectClient(api=api) as client:
            stack = Stack(folder, api, environment, client)
            try:
                stack.wait_for("an answer of the server", lambda: _answers(api), START_TIMEOUT)
                yield stack
            finally:
                for name in list(stack.workers):
                    stack.stop_worker(name)
    finally:
        _stop(server, patience=30)


def _environment(home: Path, api: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    inherited.pop("OSPO_HOME", None)
    places = {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": api,
        "PREFECT_RESULTS_LOCAL_STORAGE_PATH": str(home / "storage"),
        "PREFECT_SERVER_MEMO_STORE_PATH": str(home / "memo_store.toml"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    return {**inherited, **_SETTINGS, **places}


def descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, and theirs, in any session."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def command_of(pid: int) -> str:
    """Return the command line of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def _spawn(arguments: list[str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, *arguments],
            env=environment,
            cwd=ROOT,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _stop(process: subprocess.Popen[bytes], patience: float) -> None:
    """Ask a process to stop, and end what is left of its family after so many seconds."""
    family = descendants(process.pid)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _answers(api: str) -> bool:
    try:
        return httpx.get(f"{api}/health", timeout=2).is_success
    except httpx.HTTPError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
