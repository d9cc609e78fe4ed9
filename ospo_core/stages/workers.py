"""Worker processes that each hold an engine or a model for a phase and take shards as they become free.

A worker is an executor of the standard library with a single process: with all processes in one executor, or in one of
loky's, the death of one ends the work of all, and multiprocessing's `Pool` waits forever for what a dead one had. The
threads of the flow, one per worker, wait for the shards, so that there is no scheduler here.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from logging.handlers import QueueHandler
from queue import Empty, PriorityQueue, SimpleQueue
from typing import Protocol

from ospo_core.artifacts.manifest import ShardEntry
from ospo_core.errors import OspoError, StageError
from ospo_core.stages.base import ShardSpec
from ospo_core.stages.resources import shared_resources
from ospo_core.stages.run import StageRun

DEATHS = 3
"""How many workers may die on one shard before the stage fails."""
RELEASE_SECONDS = 30.0
"""How long a worker may take to release its engine or model before it is killed."""

_DEVICES = "CUDA_VISIBLE_DEVICES"
_THREADS = "OMP_NUM_THREADS"


@dataclass(frozen=True)
class Outcome:
    """What a worker sends back for a shard.

    Args:
        entry: entry of the published shard, and whether it was computed now; None if it failed.
        error: why it failed.
        logged: what was logged meanwhile.
    """

    entry: tuple[ShardEntry, bool] | None
    error: Exception | None
    logged: tuple[logging.LogRecord, ...]


class Worker(Protocol):
    """A process that computes one shard at a time."""

    def compute(self, run: StageRun, spec: ShardSpec) -> Outcome:
        """Compute a shard in the process, and wait for it.

        Raises:
            BrokenExecutor: the process has died.
        """

    def close(self) -> None:
        """Release what the idle process holds, and end it."""

    def kill(self) -> None:
        """End the process at once; who waits for it gets BrokenExecutor."""


@dataclass(order=True)
class _Place:
    """A place for a worker; those with a worker sort first."""

    empty: bool
    number: int
    worker: Worker | None = field(default=None, compare=False)
    given_up: bool = field(default=False, compare=False)


class WorkerPool:
    """Places for workers; a worker is started when a shard finds none free.

    Args:
        start: starts the worker of a place, given its number. TimeoutError: there is no room for it, and the pool goes
            on with fewer places. BrokenExecutor: it died.
        size: number of places.
    """

    def __init__(self, start: Callable[[int], Worker], size: int) -> None:
        self.size = size
        self._start = start
        self._free: PriorityQueue[_Place] = PriorityQueue()
        self._live: set[Worker] = set()
        self._ended = False
        self._lock = threading.Lock()
        for number in range(size):
            self._free.put(_Place(True, number))

    def compute_shard(self, run: StageRun, spec: ShardSpec) -> tuple[ShardEntry, bool]:
        """Compute a shard in the next free worker; return its entry, and whether it was computed now.

        If the worker dies, another one takes the shard. What it logs is logged here, what it raises is raised here.

        Raises:
            StageError: several workers died on this shard, or the pool was ended.
            OspoError: there is no room for a single worker.
        """
        deaths, last = 0, ""
        while deaths < DEATHS:
            place = self._free.get()
            try:
                outcome = self._worker_of(place).compute(run, spec)
            except BrokenExecutor as error:
                deaths, last = deaths + 1, str(error)
                self._empty(place)
            except TimeoutError as error:
                self._give_up(place, error)
            else:
                return _received(outcome)
            finally:
                if not place.given_up:
                    self._free.put(place)
        raise StageError(
            f"the process that computes it ended abruptly {DEATHS} times",
            field=f"stage {run.stage.name}, shard {spec.name}",
            value=last,
            remedy="If memory ran out, lower the batch size of this stage or execution.processes",
        )

    def close(self) -> None:
        """Release what the workers hold, and end them; kill those that still compute."""
        self._ended = True
        free: list[_Place] = []
        with suppress(Empty):
            while True:
                free.append(self._free.get_nowait())
        idle = [place.worker for place in free if place.worker is not None]
        with self._lock:
            for worker in self._live - set(idle):
                worker.kill()
            self._live.clear()
        with ThreadPoolExecutor(self.size) as closing:
            list(closing.map(lambda worker: worker.close(), idle))
        for place in free:  # so that a shard that comes too late does not wait
            place.worker, place.empty = None, True
            self._free.put(place)

    def kill(self) -> None:
        """End all workers at once; shards that wait for one fail."""
        with self._lock:
            self._ended = True
            for worker in self._live:
                worker.kill()

    def _worker_of(self, place: _Place) -> Worker:
        if place.worker is None:
            self._check_open()
            place.worker, place.empty = self._start(place.number), False
            with self._lock:
                self._live.add(place.worker)
        self._check_open()
        return place.worker

    def _check_open(self) -> None:
        if self._ended:
            raise StageError("the worker processes were ended", remedy="Run the same command again to continue")

    def _empty(self, place: _Place) -> None:
        """Forget a worker that has died."""
        worker, place.worker, place.empty = place.worker, None, True
        if worker is not None:
            with self._lock:
                self._live.discard(worker)
            worker.kill()

    def _give_up(self, place: _Place, error: TimeoutError) -> None:
        """Go on with one place less, unless it is the last."""
        with self._lock:
            if self.size > 1:
                self.size -= 1
                place.given_up = True
                return
        raise OspoError(
            f"no worker could be started: {error}", field="execution", remedy="Wait until the machines are less busy"
        ) from None


class ProcessWorker:
    """A worker on this machine, in a process of its own that ends when this one ends, however it ends.

    Args:
        environment: variables of the process, set before it imports torch.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        spawning = multiprocessing.get_context("spawn")  # a forked process could not use CUDA
        self._executor = ProcessPoolExecutor(1, spawning, _begin, (dict(environment),))
        with _interrupts_held():
            started = self._executor.submit(os.getpid)
        self._pid = started.result()

    def compute(self, run: StageRun, spec: ShardSpec) -> Outcome:
        """Compute a shard in the process; see `Worker`."""
        return self._executor.submit(compute_here, run, spec).result()

    def close(self) -> None:
        """Release what the process holds, and end it."""
        try:
            self._executor.submit(_release).result(RELEASE_SECONDS)
        except (BrokenExecutor, TimeoutError):
            self.kill()
        self._executor.shutdown()

    def kill(self) -> None:
        """End the process at once."""
        for process in multiprocessing.active_children():
            if process.pid == self._pid:
                process.kill()


def process_pool(run: StageRun) -> WorkerPool | None:
    """Return the worker processes that share the shards of a stage on this machine, kept for the phase.

    `execution.processes` says how many; with GPUs there are at most as many as GPUs, each with one of its own. None:
    the shards are computed in this process.
    """
    gpus = visible_gpus(run.gpus_here())
    wanted = run.config.execution.processes
    if wanted == "auto":
        count = len(gpus) if run.stage.uses_gpu(run.config) else 1
    else:
        count = min(wanted, len(gpus)) if gpus else wanted
    if count <= 1:
        return None

    def start(number: int) -> ProcessWorker:
        return ProcessWorker(worker_environment(number, count, gpus))

    pool: WorkerPool = run.resources.workers(["processes", count], lambda: WorkerPool(start, count))
    return pool


def visible_gpus(count: int) -> list[str]:
    """Return the names of the GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` writes them.

    Args:
        count: how many torch sees. Of the instances of a divided GPU (MIG) a process sees the first only, whatever is
            listed, so all that are listed count.
    """
    listed = os.environ.get(_DEVICES)
    if listed is None or not count:
        return [str(number) for number in range(count)]
    names = [name.strip() for name in listed.split(",") if name.strip()]
    return names if all(name.startswith("MIG-") for name in names) else names[:count]


def worker_environment(number: int, count: int, gpus: list[str]) -> dict[str, str]:
    """Return what differs in the environment of worker `number` of `count`: its GPU, and its share of the cores.

    A number of threads that is set already is kept.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = {_THREADS: os.environ.get(_THREADS) or str(max(1, cores // count))}
    return {**threads, **({_DEVICES: gpus[number]} if gpus else {})}


def compute_here(run: StageRun, spec: ShardSpec) -> Outcome:
    """Compute a shard in this process, a worker, and return what can be sent back: no error that cannot be pickled."""
    logged: SimpleQueue[logging.LogRecord] = SimpleQueue()
    handler, root = QueueHandler(logged), logging.getLogger()
    root.addHandler(handler)
    entry, error = None, None
    try:
        entry = run.compute_shard(spec)
    except Exception as raised:  # whatever it is, it is raised where the shard is waited for
        error = _portable(raised)
    finally:
        root.removeHandler(handler)
    return Outcome(entry, error, tuple(logged.get() for _ in range(logged.qsize())))


def _received(outcome: Outcome) -> tuple[ShardEntry, bool]:
    """Log what was logged for a shard, and return its entry or raise its error."""
    for record in outcome.logged:
        if (here := logging.getLogger(record.name)).isEnabledFor(record.levelno):
            here.handle(record)
    if outcome.entry is None:
        raise outcome.error or StageError("a worker sent nothing back")
    return outcome.entry


def _portable(error: Exception) -> Exception:
    """Return an error that survives pickling, with its traceback as a note."""
    trace = "".join(traceback.format_exception(error))
    try:
        portable: Exception = pickle.loads(pickle.dumps(error))
    except Exception:  # classes of other packages fail in many ways
        portable = OspoError(f"{type(error).__name__}: {error}")
    portable.add_note(f"In worker process {os.getpid()}:\n{trace}")
    return portable


def _begin(environment: Mapping[str, str]) -> None:
    """Prepare a worker process: its environment, no reaction to Ctrl-C, and an end when its parent ends."""
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.captureWarnings(True)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _release() -> None:
    shared_resources().release()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Block SIGINT in this thread, and with it in a process that starts meanwhile: its parent decides when it ends."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
