"""Ctrl-C and other signals: the process ends within seconds and leaves nothing running.

Python alone does not manage that. Prefect waits for the thread that computes a shard, which may take minutes, and
replaces the handler of SIGTERM while a flow runs. So a thread learns of signals through Python's wake-up pipe, gives
the main thread a moment to unwind, and then ends the process whatever it is doing. Nothing is lost: results are
published atomically, since a process may be killed at any time anyway.
"""

from __future__ import annotations

import contextvars
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    import psutil

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_MESSAGE = "Interrupted. Everything finished is kept; run the same command again to continue."
_GRACE_S = 1.5
"""Time for the main thread to unwind, and for a training process to write its checkpoint."""
_AGAIN_S = 0.02
"""Time after which a main thread that was importing is interrupted again."""
_REPORT_S = 0.5
"""Time to tell the Prefect server which runs have ended."""
_SERVER_S = 0.4
"""Time that the embedded server has to shut down before it is killed."""
_LIMIT_S = 4.0
"""Time after which the process ends although something above takes longer; its children then end with it."""


@contextmanager
def quick_end(before: Iterable[int] | None = None) -> Iterator[None]:
    """End this process quickly when a signal asks for it; the exit code is 128 + the signal's number, as in shells.

    Signals that are ignored stay ignored, such as SIGHUP under nohup. What is set up here stays until the process
    ends, since the time after the block, when exit handlers run, is also covered.

    Args:
        before: the signals that were blocked before the caller blocked those that end a process; None: it has not.
    """
    _hold_signals()
    if before is not None:
        _held.mask = set(before)
    ending = _Ending()
    _handle(ending.on_signal)
    os.register_at_fork(before=_hold_signals, after_in_parent=_release_signals, after_in_child=_leave_to_parent)
    try:
        _release_signals()
        yield
    finally:
        ending.unwound.set()
        if ending.begun.is_set():
            threading.Event().wait()  # the other thread ends the process


_held = threading.local()


def _hold_signals() -> None:
    """Let signals to this thread wait."""
    _held.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def _release_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _held.mask)


def _leave_to_parent() -> None:
    """Undo `quick_end` in a forked process, such as a worker of a pool: a signal to it does not concern this one."""
    signal.set_wakeup_fd(-1)
    _handle(signal.SIG_DFL)
    _release_signals()


def _handle(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


class _Ending:
    """The end of this process on a signal: `begun` is set when one arrives, `unwound` when the main thread is done."""

    def __init__(self) -> None:
        import psutil  # noqa: F401 - now, since the thread could wait for an import that was interrupted

        from flows import prefect_server  # noqa: F401 - likewise

        self.begun, self.unwound = threading.Event(), threading.Event()
        self._interrupted, self._importing = False, False
        self._context: contextvars.Context | None = None
        self._signals, wake_up = os.pipe()
        os.set_blocking(wake_up, False)
        signal.set_wakeup_fd(wake_up, warn_on_full_buffer=False)
        threading.Thread(target=self._wait_for_signal, name="signals", daemon=True).start()

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Interrupt the main thread, once; further signals must not disturb how it unwinds.

        An import is not interrupted: an exception inside the import system leaves its locks held. The other thread asks
        again until it is over.
        """
        self._begin()
        if self._interrupted or self.unwound.is_set():
            return
        self._context = contextvars.copy_context()
        self._importing = _is_importing(frame)
        if not self._importing:
            self._interrupted = True
            raise KeyboardInterrupt

    def _begin(self) -> None:
        self.begun.set()
        sys.unraisablehook = lambda unraisable: None  # an interrupted destructor is expected
        threading.excepthook = lambda failure: None  # and so is a thread whose process has ended

    def _wait_for_signal(self) -> None:
        number = 0
        while number not in _SIGNALS:
            number = os.read(self._signals, 1)[0]
        self._begin()
        last_resort = threading.Timer(_LIMIT_S, os._exit, (128 + number,))
        last_resort.daemon = True
        last_resort.start()
        try:
            self._end(number)
        finally:
            os._exit(128 + number)

    def _end(self, number: int) -> None:
        """End everything but this thread; the embedded server last, since ending runs still talk to it."""
        from flows import prefect_server

        deadline = time.monotonic() + _GRACE_S
        _end_children(deadline, spared={*prefect_server.process_ids(), *_resource_tracker()})
        while not self.unwound.wait(_AGAIN_S) and time.monotonic() < deadline:
            if self._importing:
                self._importing = False
                signal.pthread_kill(threading.main_thread().ident or 0, number)
        if not self.unwound.is_set() and self._context is not None:
            report = threading.Thread(target=self._context.run, args=(_report_crash,), daemon=True)
            report.start()
            report.join(_REPORT_S)
        prefect_server.close(_SERVER_S)
        _end_children(time.monotonic())
        os.write(sys.stderr.fileno(), _last_words())


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_globals.get("__name__") != "importlib._bootstrap":
        frame = frame.f_back
    return frame is not None


def _last_words() -> bytes:
    """Return the message; on a terminal, on a line of its own, with the cursor that a progress bar may have hidden."""
    prefix = "\r\x1b[?25h\x1b[J" if sys.stderr.isatty() else ""
    return f"{prefix}{_MESSAGE}\n".encode()


def _end_children(deadline: float, spared: Collection[int] = ()) -> None:
    """End all child processes except those in `spared`: terminate, wait until `deadline`, kill."""
    import psutil

    children = [one for one in psutil.Process().children(recursive=True) if one.pid not in spared]
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.terminate()
    while any(_is_running(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.02)
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.kill()


def _resource_tracker() -> set[int]:
    """Return the process that counts the semaphores of a pool: killed first, it would be missed, with a traceback."""
    module = sys.modules.get("multiprocessing.resource_tracker")
    number = getattr(getattr(module, "_resource_tracker", None), "_pid", None)
    return set() if number is None else {number}


def _is_running(process: psutil.Process) -> bool:
    """Return whether a process runs, without reaping it, since its parent may be waiting for it."""
    import psutil

    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _report_crash() -> None:
    """Tell the Prefect server that the flow run of this context and its parent runs have crashed."""
    if "prefect.context" not in sys.modules:
        return
    from prefect.client.orchestration import get_client
    from prefect.context import FlowRunContext
    from prefect.states import Crashed

    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    with get_client(sync_client=True) as client:
        identity: UUID | None = context.flow_run.id
        while identity is not None:
            client.set_flow_run_state(identity, Crashed(message="Execution was interrupted."), force=True)
            parent = client.read_flow_run(identity).parent_task_run_id
            identity = client.read_task_run(parent).flow_run_id if parent is not None else None
