"""Worker processes: who computes which shard, what comes back, and what happens when one dies. Real processes."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from ospo_core.artifacts.manifest import ShardEntry
from ospo_core.errors import OspoError, StageError
from ospo_core.stages import StageRun
from ospo_core.stages.resources import Resources
from ospo_core.stages.workers import (
    DEATHS,
    ProcessWorker,
    Worker,
    WorkerPool,
    process_pool,
    visible_gpus,
    worker_environment,
)
from tests.support.rounds import small_round, text_run
from tests.support.worker_stage import WorkerStage, spec

GPUS = ["4", "GPU-5c0f"]
ENGINE = {"kind": "endpoint", "base_url": "http://127.0.0.1:9", "served_model": "rules"}
_PARENT = """
import os, sys, time
from ospo_core.stages.workers import ProcessWorker

if __name__ == "__main__":
    ProcessWorker({})
    print("started", flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    """Two workers, each with a GPU of its own that is made up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "3")
        made = WorkerPool(lambda number: ProcessWorker(worker_environment(number, 2, GPUS)), 2)
        yield made
        made.close()
    assert not running(psutil.Process().children(recursive=True), "spawn_main")


@pytest.fixture
def run(tmp_path: Path) -> StageRun:
    return text_run(WorkerStage(), small_round(tmp_path, engine=ENGINE), Resources())


def running(processes: list[psutil.Process], words: str) -> list[int]:
    return [one.pid for one in processes if one.is_running() and words in " ".join(one.cmdline())]


def computed(pool: WorkerPool, run: StageRun, *tasks: str) -> list[dict[str, Any]]:
    """Compute one shard per task, as many at a time as there are workers; return what each tells of its process."""
    with ThreadPoolExecutor(pool.size) as threads:
        shards = list(enumerate(tasks))
        entries: list[Future[tuple[ShardEntry, bool]]] = [
            threads.submit(pool.compute_shard, run, spec(index, do)) for index, do in shards
        ]
        return [future.result()[0].extra[spec(index).name] for (index, _), future in zip(shards, entries, strict=True)]


def test_two_workers_share_the_shards_and_each_starts_its_engine_once(pool: WorkerPool, run: StageRun) -> None:
    facts = computed(pool, run, *["meet"] * 4)
    assert len({fact["pid"] for fact in facts}) == 2 and os.getpid() not in {fact["pid"] for fact in facts}
    assert {fact["starts"] for fact in facts} == {1}
    assert {fact["CUDA_VISIBLE_DEVICES"] for fact in facts} == set(GPUS)
    assert {fact["OMP_NUM_THREADS"] for fact in facts} == {"3"}, "what is set already is kept"
    assert all(fact["light"] for fact in facts[:2]), "the variables are set before torch is imported"
    assert pool.compute_shard(run, spec(0, "meet"))[1] is False, "published already"


def test_errors_and_messages_come_back(pool: WorkerPool, run: StageRun, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(StageError) as caught:
        pool.compute_shard(run, spec(0, "fail"))
    error = caught.value
    assert (error.problem, error.field, error.value, error.remedy) == ("cannot work", "somewhere", 3, "Do otherwise")
    assert "run_shard" in "".join(error.__notes__), "where it was raised"
    with pytest.raises(OspoError, match="UnportableError: two words"):
        pool.compute_shard(run, spec(0, "fail unportably"))
    with caplog.at_level(logging.WARNING):
        pool.compute_shard(run, spec(0, "warn"))
    assert [(record.name, record.getMessage()) for record in caplog.records] == [
        ("ospo_core.somewhere", "mind the/gap")
    ]


def test_a_killed_worker_costs_one_shard_and_is_replaced(pool: WorkerPool, run: StageRun) -> None:
    before = {fact["pid"] for fact in computed(pool, run, "meet", "meet")}
    facts = computed(pool, run, "meet", "meet", "die once", "start", "start")
    after = {fact["pid"] for fact in facts}
    assert len(before & after) >= 1 and (run.scratch / "died").exists()
    with pytest.raises(StageError, match=rf"shard part-00009: .* ended abruptly {DEATHS} times"):
        pool.compute_shard(run, spec(9, "die"))
    assert computed(pool, run, "meet", "meet"), "the pool goes on"


def test_killing_ends_shards_that_are_computed_and_none_starts_again(run: StageRun) -> None:
    pool = WorkerPool(lambda number: ProcessWorker({}), 1)
    with ThreadPoolExecutor(2) as threads:
        shards = [threads.submit(pool.compute_shard, run, spec(index, "sleep")) for index in range(2)]
        while not list(run.scratch.glob("asleep-*")):
            time.sleep(0.02)
        pool.kill()
        for shard in shards:
            with pytest.raises(StageError, match="were ended"):
                shard.result(timeout=20)
    pool.close()


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(_PARENT, encoding="utf-8")
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == b"started\n"
        children = psutil.Process(parent.pid).children(recursive=True)
        assert running(children, "spawn_main")
        os.kill(parent.pid, signal.SIGKILL)
    assert not psutil.wait_procs(children, timeout=20)[1]


class Scarce:
    """Starts workers as long as there is room for them; they compute nothing."""

    def __init__(self, room: int) -> None:
        self.room = room

    def __call__(self, number: int) -> Worker:
        if not self.room:
            raise TimeoutError("the nodes are busy")
        self.room -= 1
        return ProcessWorker({})


def test_a_pool_without_room_says_so(run: StageRun) -> None:
    pool = WorkerPool(Scarce(0), 3)
    with pytest.raises(OspoError, match="no worker could be started: the nodes are busy"):
        pool.compute_shard(run, spec(0))
    assert pool.size == 1


@pytest.mark.parametrize(
    ("listed", "seen", "names"),
    [
        (None, 2, ["0", "1"]),
        (None, 0, []),
        ("3,1", 2, ["3", "1"]),
        ("0,1,-1,2", 2, ["0", "1"]),
        ("GPU-5c0f,GPU-77aa", 2, ["GPU-5c0f", "GPU-77aa"]),
        ("MIG-1a,MIG-2b,MIG-3c", 1, ["MIG-1a", "MIG-2b", "MIG-3c"]),
        ("", 0, []),
    ],
)
def test_workers_get_the_visible_gpus(
    monkeypatch: pytest.MonkeyPatch, listed: str | None, seen: int, names: list[str]
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if listed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert visible_gpus(seen) == names
    given = [worker_environment(number, len(names), names) for number in range(len(names))]
    assert [one["CUDA_VISIBLE_DEVICES"] for one in given] == names


def test_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)))
    assert worker_environment(1, 4, []) == {"OMP_NUM_THREADS": "4"}
    assert worker_environment(1, 32, []) == {"OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize(
    ("wanted", "gpus", "engine", "size"),
    [
        ("auto", 0, "transformers", None),
        ("auto", 1, "transformers", None),
        ("auto", 8, "transformers", 8),
        ("auto", 8, "endpoint", None),
        (4, 8, "endpoint", 4),
        (16, 8, "transformers", 8),
        (2, 0, "transformers", 2),
        (1, 8, "transformers", None),
    ],
)
def test_number_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str | int, gpus: int, engine: str, size: int | None
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(StageRun, "gpus_here", lambda run: gpus)
    config = small_round(tmp_path, engine={**ENGINE, "kind": engine}, execution={"processes": wanted})
    made = process_pool(text_run(WorkerStage(), config, Resources()))
    assert (made.size if made is not None else None) == size


def test_processes_change_no_fingerprint(tmp_path: Path) -> None:
    runs = [
        text_run(WorkerStage(), small_round(tmp_path, execution={"processes": wanted}), Resources())
        for wanted in ("auto", 8)
    ]
    assert runs[0].fingerprint == runs[1].fingerprint


def test_the_pool_is_kept_for_the_phase_and_ends_with_it(tmp_path: Path) -> None:
    resources = Resources()
    run = text_run(WorkerStage(), small_round(tmp_path, engine=ENGINE, execution={"processes": 2}), resources)
    pool = process_pool(run)
    assert pool is not None and process_pool(run) is pool
    resources.release()
    with pytest.raises(StageError, match="were ended"):
        pool.compute_shard(run, spec(0))
