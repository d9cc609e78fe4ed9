"""A Ray cluster of two nodes, each with processes, an address on loopback and a current folder of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEAD, SECOND = "127.0.0.2", "127.0.0.3"
_START_SECONDS = 180.0
_STORE_BYTES = "100000000"
_COMMON = ("--num-cpus=1", f"--object-store-memory={_STORE_BYTES}", "--min-worker-port=0", "--max-worker-port=0")
_ALWAYS = (*_COMMON, "--disable-usage-stats", "--block")


@dataclass(frozen=True)
class RayNodes:
    """A running cluster; `address` is the one for drivers on this machine, `client` the one for any other."""

    address: str
    client: str


@contextmanager
def ray_nodes(folder: Path) -> Iterator[RayNodes]:
    """Run the two nodes, one CPU each, with their files in `folder` (short path: it holds sockets)."""
    port, client_port = _free_port(), _free_port()
    address, files = f"{HEAD}:{port}", folder / "ray"
    head = ["--head", f"--node-ip-address={HEAD}", f"--port={port}", f"--ray-client-server-port={client_port}"]
    with ExitStack() as nodes:
        nodes.enter_context(_node(folder / "one", [*head, "--include-dashboard=false", f"--temp-dir={files}"]))
        nodes.enter_context(_node(folder / "two", [f"--address={address}", f"--node-ip-address={SECOND}"]))
        yield RayNodes(address, f"ray://{HEAD}:{client_port}")


def workers(title: str) -> dict[int, str]:
    """Return the worker processes with this title (`ray::compute_shard`), each with its node's address."""
    found = {}
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and _command(process).split("\0")[0].strip() == title:
            raylet = _command(Path("/proc") / _parent(process))
            here = (node for node in (HEAD, SECOND) if f"--node_ip_address={node}" in raylet)
            found[int(process.name)] = next(here, "")
    return {pid: node for pid, node in found.items() if node}


def wait_until(condition: Callable[[], bool], what: str, seconds: float = _START_SECONDS) -> None:
    """Wait for a condition; raise TimeoutError that names it."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.01)


@contextmanager
def _node(folder: Path, options: list[str]) -> Iterator[None]:
    """Run one node in the foreground of a process of its own."""
    folder.mkdir()
    log = folder / "start.log"
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", *options, *_ALWAYS]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        wait_until(
            lambda: process.poll() is not None or "Ray runtime started" in log.read_text(encoding="utf-8"),
            f"a Ray node that started: {log}",
        )
        if process.poll() is not None:
            raise RuntimeError(f"ray start ended with {process.returncode}: {log.read_text(encoding='utf-8')[-800:]}")
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _command(process: Path) -> str:
    try:
        return (process / "cmdline").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _parent(process: Path) -> str:
    try:
        return (process / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1]
    except OSError:
        return "0"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HEAD, 0))
        return int(probe.getsockname()[1])
