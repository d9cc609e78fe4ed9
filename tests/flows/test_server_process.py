"""The embedded server's process: collecting garbage there must not stop the thread of the event loop."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_DEADLOCK = """
import gc, sqlite3, sys, threading, time, weakref
from flows.server_process import collect_in_a_thread

def connect():
    return sqlite3.connect(sys.argv[1], timeout=2, check_same_thread=False, isolation_level=None)

class Forgotten:
    pass

holder, waiter = connect(), connect()
holder.execute("create table t (x)")
gc.disable()
cycle = Forgotten()
cycle.itself, cycle.cursor = cycle, waiter.execute("values (1), (2)")
cycle.cursor.fetchone()
collected = weakref.ref(cycle)
del cycle
holder.execute("begin immediate")
outcome = []

def write():
    try:
        waiter.execute("insert into t values (1)")
    except sqlite3.OperationalError as error:
        outcome.append(type(error).__name__)  # its text may be gone: the collection finalizes on the same connection

writer = threading.Thread(target=write)
writer.start()
time.sleep(0.3)
if sys.argv[2] == "here":
    gc.collect()
else:
    collect_in_a_thread(0.1)
    time.sleep(0.5)
holder.execute("commit")
writer.join()
time.sleep(0.5)
sys.stdout.write(f"{outcome} {collected() is None} {gc.isenabled()}")
"""
"""One thread holds the lock of a database, another waits for it; the waiting connection has a forgotten cursor."""


@pytest.mark.parametrize(("where", "outcome"), [("here", "['OperationalError']"), ("in a thread", "[]")])
def test_a_collection_elsewhere_lets_the_holder_of_a_lock_go_on(tmp_path: Path, where: str, outcome: str) -> None:
    command = [sys.executable, "-c", _DEADLOCK, str(tmp_path / "some.db"), where]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"{outcome} True False"
