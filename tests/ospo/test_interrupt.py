"""Ctrl-C in a real terminal, at several moments of a round: a quick end, nothing left behind, and the round goes on."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.timeout(600)

LONGEST = 5.0
"""Seconds within which an interrupted command must be gone."""
PATIENCE = 240.0
CTRL_C = b"\x03"


@dataclass
class Terminal:
    """A command that runs in a terminal of its own, and what it has shown there."""

    pid: int
    screen: int
    home: Path
    shown: bytearray = field(default_factory=bytearray)

    def read(self, seconds: float) -> bool:
        """Take in what is shown within so many seconds; return whether the terminal is still open."""
        if not select.select([self.screen], [], [], seconds)[0]:
            return True
        try:
            self.shown += (found := os.read(self.screen, 65536))
        except OSError:  # the command has ended, and with it the other side of the terminal
            return False
        return bool(found)

    def wait_until(self, moment: Callable[[Terminal], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not moment(self):
            assert self.read(0.02) and time.monotonic() < deadline, self.shown.decode()

    def exit_code(self, seconds: float) -> int | None:
        """Return the exit code, or None if the command has not ended in time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.read(0.02)
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                while self.read(0):
                    if not select.select([self.screen], [], [], 0.1)[0]:
                        break
                return os.waitstatus_to_exitcode(status)
        return None

    def processes(self) -> list[psutil.Process]:
        """Return all processes that the command has started, in whatever session, and itself."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("PREFECT_HOME") == str(self.home):
                    found.append(process)
            except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
        return found

    def runs(self, words: str) -> bool:
        return any(words in " ".join(process.cmdline()) for process in self.processes())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage of one round, which every test takes up where the one before was interrupted."""
    made: Path = tmp_path_factory.mktemp("interrupted")
    return made


def start(folder: Path, processes: int = 1) -> Terminal:
    """Start a smoke round of small shards, with a Prefect server of its own, in a terminal."""
    options = [f"storage.root={folder}/runs", f"storage.scratch={folder}/scratch", "storage.shard_size=2"]
    options += [
        "prompts.quotas={color_1: 4, spatial_2d: 4}",
        "training.steps=8",
        "evaluation.limit=8",
        "model.device=cpu",
        f"execution.processes={processes}",
    ]
    command = [sys.executable, "-m", "ospo", "round", "--profile", "smoke"]
    command += [word for option in options for word in ("--set", option)]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    home = folder / "prefect"
    environment = {**inherited, "PREFECT_HOME": str(home), "TERM": "xterm-256color", "OMP_NUM_THREADS": "1"}
    pid, screen = pty.fork()
    if pid == 0:
        os.execve(command[0], command, environment)
    return Terminal(pid, screen, home)


def published(folder: Path, pattern: str) -> Callable[[Terminal], bool]:
    return lambda terminal: next(folder.glob(f"runs/{pattern}"), None) is not None


def importing(folder: Path) -> Callable[[Terminal], bool]:
    return lambda terminal: len(os.listdir(f"/proc/{terminal.pid}/task")) > 1


def starting_the_server(folder: Path) -> Callable[[Terminal], bool]:
    return lambda terminal: terminal.runs("create_app")


def making_prompts(folder: Path) -> Callable[[Terminal], bool]:
    return published(folder, "prompts/*/raw-*.json")


def sampling(folder: Path) -> Callable[[Terminal], bool]:
    return published(folder, "images/*/part-00001*.parquet")


def sharing(folder: Path) -> Callable[[Terminal], bool]:
    """Two worker processes compute shards of the images."""
    third = published(folder, "images/*/part-00002*.parquet")
    return lambda terminal: third(terminal) and terminal.runs("spawn_main")


def training(folder: Path) -> Callable[[Terminal], bool]:
    return lambda terminal: next(folder.rglob("metrics.jsonl"), None) is not None and terminal.runs("training.run")


def finishing(folder: Path) -> Callable[[Terminal], bool]:
    """The last result is published, and the round's report is still to be written."""
    return published(folder, "evaluation/*/manifest.json")


_FORK = """
import multiprocessing, sys, time
from ospo.interrupt import quick_end
with quick_end():
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    child.start()
    child.terminate()
    child.join()
    time.sleep(0.5)
    sys.stdout.write(f"the child ended with {child.exitcode}")
"""


def test_a_signal_to_a_forked_process_is_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", _FORK], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"the child ended with -{signal.SIGTERM:d}", "")


def ctrl_c(terminal: Terminal) -> int:
    os.write(terminal.screen, CTRL_C)
    return signal.SIGINT


def impatient_ctrl_c(terminal: Terminal) -> int:
    for _ in range(3):
        os.write(terminal.screen, CTRL_C)
        terminal.read(0.1)
    return signal.SIGINT


def termination(terminal: Terminal) -> int:
    os.kill(terminal.pid, signal.SIGTERM)
    return signal.SIGTERM


def interrupt(terminal: Terminal) -> int:
    os.kill(terminal.pid, signal.SIGINT)
    return signal.SIGINT


def termination_of_the_group(terminal: Terminal) -> int:
    os.killpg(terminal.pid, signal.SIGTERM)
    return signal.SIGTERM


def holds_signals(terminal: Terminal) -> bool:
    """Whether the command has begun and lets signals wait."""
    status = Path(f"/proc/{terminal.pid}/status").read_text(encoding="utf-8")
    (blocked,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigBlk"))
    return bool(int(blocked, 16) >> (signal.SIGINT - 1) & 1)


@pytest.mark.parametrize(
    ("seconds", "end"),
    [
        (0.0, interrupt),
        (0.0, termination_of_the_group),
        (0.05, ctrl_c),
        (0.1, interrupt),
        (0.2, termination_of_the_group),
        (0.3, interrupt),
        (0.6, termination_of_the_group),
    ],
)
def test_the_first_moments_are_no_exception(folder: Path, seconds: float, end: Callable[[Terminal], int]) -> None:
    terminal = start(folder)
    deadline = time.monotonic() + PATIENCE
    while not holds_signals(terminal) and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(seconds)
    check_ended(terminal, 128 + end(terminal))


@pytest.mark.parametrize(
    ("moment", "end"),
    [
        (importing, ctrl_c),
        (starting_the_server, ctrl_c),
        (making_prompts, termination),
        (sampling, ctrl_c),
        (sharing, ctrl_c),
        (training, impatient_ctrl_c),
        (finishing, interrupt),
    ],
    ids=lambda function: function.__name__,
)
def test_a_round_ends_quickly_at_any_moment(
    folder: Path, moment: Callable[[Path], Callable[[Terminal], bool]], end: Callable[[Terminal], int]
) -> None:
    terminal = start(folder, processes=2 if moment is sharing else 1)
    terminal.wait_until(moment(folder))
    check_ended(terminal, 128 + end(terminal))


def check_ended(terminal: Terminal, code: int) -> None:
    """The command ends in time with `code`, one message and no traceback, and none of its processes is left."""
    begun = time.monotonic()
    try:
        assert terminal.exit_code(LONGEST) == code, terminal.shown.decode()
        shown = terminal.shown.decode()
        assert "Traceback" not in shown and shown.count("Interrupted.") == 1
        while (left := terminal.processes()) and time.monotonic() - begun < LONGEST:
            time.sleep(0.02)
        assert not left, left
    finally:
        for process in terminal.processes():
            process.kill()
        os.close(terminal.screen)


def test_the_next_start_goes_on_and_finishes(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/*/*.parquet")}
    terminal = start(folder)
    assert terminal.exit_code(PATIENCE) == 0, terminal.shown.decode()
    os.close(terminal.screen)
    assert "Report:" in terminal.shown.decode()
    assert before and all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert terminal.processes() == []
