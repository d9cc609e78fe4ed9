"""The lock of a training's folder, between real processes: who waits, who inherits it, and what removes its file."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ospo_core.training.lock import folder_lock, lock_descriptors

ROOT = Path(__file__).resolve().parents[3]
WAITING = "WARNING another process trains in {}; waiting for it to end"
TURNS, HOLDERS = 20, 4

_HOLDER = """
import logging, subprocess, sys
from pathlib import Path
from ospo_core.training.lock import folder_lock, lock_descriptors

def say(line):
    sys.stdout.write(f"{line}\\n")
    sys.stdout.flush()

logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s")
folder = Path(sys.argv[1])
with folder_lock(folder):
    say("in")
    for order in sys.stdin:
        if order == "leave\\n":
            break
        child = subprocess.Popen(["sleep", "600"], pass_fds=lock_descriptors(folder), start_new_session=True)
        say(child.pid)
say("out")
"""
"""Holds the lock, starts children that inherit it, and leaves, as it is told to."""

_COMER = """
import sys
from pathlib import Path
from ospo_core.training.lock import folder_lock

folder, journal = Path(sys.argv[1]), Path(sys.argv[2])
for turn in range(int(sys.argv[4])):
    with folder_lock(folder), journal.open("a") as lines:
        folder.mkdir()
        lines.write(f"{sys.argv[3]} comes\\n")
        lines.flush()
        folder.rmdir()
        lines.write(f"{sys.argv[3]} goes\\n")
"""
"""Takes the lock again and again, and removes the folder each time, with which the lock's file goes."""


class Holder:
    """A process that wants the lock of a folder, then holds it."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _HOLDER, str(folder)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.children: list[int] = []

    def next_line(self) -> str:
        """Wait for what the process says next."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, order: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{order}\n")

    def start_child(self) -> int:
        """Have the holder start a process that inherits the lock; return its id."""
        self.tell("child")
        self.children.append(int(self.next_line()))
        return self.children[-1]

    def leave(self) -> None:
        self.tell("leave")
        assert self.next_line() == "out"
        assert self.process.wait() == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "training").mkdir()
    return tmp_path / "training"


@pytest.fixture
def holder(folder: Path) -> Iterator[Callable[[], Holder]]:
    """Return what starts a holder; none of them, nor of their children, outlives the test."""
    holders: list[Holder] = []

    def start() -> Holder:
        holders.append(Holder(folder))
        return holders[-1]

    yield start
    for one in holders:
        one.kill()
        for stream in (one.process.stdin, one.process.stdout):
            assert stream is not None
            stream.close()
        for child in one.children:
            end(child)


def end(pid: int) -> None:
    """Kill a process that may have ended."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def lock_file(folder: Path) -> Path:
    return folder.with_name("training.lock")


def is_locked(folder: Path) -> bool:
    """Return whether some process has the lock of the file that is there now."""
    with lock_file(folder).open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_the_second_waits_until_the_first_has_left(folder: Path, holder: Callable[[], Holder]) -> None:
    first = holder()
    assert first.next_line() == "in"
    second = holder()
    assert second.next_line() == WAITING.format(folder)
    assert is_locked(folder)
    first.leave()
    assert second.next_line() == "in"
    second.leave()
    assert not is_locked(folder)


def test_a_killed_holder_without_a_child_leaves_the_lock_free(folder: Path, holder: Callable[[], Holder]) -> None:
    first = holder()
    assert first.next_line() == "in"
    first.kill()
    assert lock_file(folder).exists() and not is_locked(folder)
    second = holder()
    assert second.next_line() == "in"


def test_the_child_of_a_killed_holder_keeps_the_lock_until_it_ends(folder: Path, holder: Callable[[], Holder]) -> None:
    first = holder()
    assert first.next_line() == "in"
    child = first.start_child()
    second = holder()
    assert second.next_line() == WAITING.format(folder)
    first.kill()
    assert is_locked(folder), "the lock died with the holder, while its child lives"
    end(child)
    assert second.next_line() == "in"


def test_only_the_holder_has_something_to_hand_down(folder: Path) -> None:
    assert lock_descriptors(folder) == ()
    with folder_lock(folder):
        (descriptor,) = lock_descriptors(folder)
        assert os.path.samestat(os.fstat(descriptor), lock_file(folder).stat())
        assert lock_descriptors(folder.with_name("other")) == ()
    assert lock_descriptors(folder) == ()


def test_the_lock_file_goes_with_the_folder_and_only_then(folder: Path) -> None:
    with folder_lock(folder):
        assert lock_file(folder).exists()
    assert lock_file(folder).exists()
    with folder_lock(folder):
        folder.rmdir()
    assert not lock_file(folder).exists()


def test_it_is_given_back_where_the_block_fails(folder: Path) -> None:
    with pytest.raises(RuntimeError, match="in the block"), folder_lock(folder):
        raise RuntimeError("in the block")
    assert lock_descriptors(folder) == () and not is_locked(folder)


def test_a_lock_on_a_file_that_was_removed_meanwhile_does_not_count(
    folder: Path, holder: Callable[[], Holder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between our opening the file and locking it, the file goes with its folder, and another locks a new one."""
    real, said, others = fcntl.flock, [], []

    def flock(descriptor: int, operation: int) -> Any:
        if not others:
            lock_file(folder).unlink()
            others.append(holder())
            said.append(others[0].next_line())
        elif len(said) == 1 and operation & fcntl.LOCK_NB:
            said.append("we came again")
            with pytest.raises(BlockingIOError):
                real(descriptor, operation)
            others[0].leave()
        return real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with folder_lock(folder):
        assert said == ["in", "we came again"], "two are in at once"
        assert os.path.samestat(os.fstat(lock_descriptors(folder)[0]), lock_file(folder).stat())


def test_of_many_who_come_and_remove_the_folder_each_is_alone(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    command = [sys.executable, "-c", _COMER, str(tmp_path / "training"), str(journal)]
    comers = [subprocess.Popen([*command, str(number), str(TURNS)], cwd=ROOT) for number in range(HOLDERS)]
    assert [comer.wait() for comer in comers] == [0] * HOLDERS
    lines = journal.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2 * HOLDERS * TURNS
    for comes, goes in zip(lines[::2], lines[1::2], strict=True):
        assert comes.split() == [goes.split()[0], "comes"] and goes.endswith("goes")
    assert not lock_file(tmp_path / "training").exists()
