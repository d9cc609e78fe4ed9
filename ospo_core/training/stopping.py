"""How a training process learns that it should stop: SIGTERM, or the end of the process that started it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

from ospo_core.training.job import EXIT_STOPPED

_ORPHAN_GRACE_S = 120.0


class StopRequest:
    """A flag that is set from outside and asked by the training loop."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def __call__(self) -> bool:
        """Tell whether a stop was asked for."""
        return self._event.is_set()

    def on_sigterm(self) -> None:
        """Let SIGTERM ask for a stop (main thread only)."""
        signal.signal(signal.SIGTERM, self._handle)

    def on_orphaned(self) -> None:
        """Let the end of standard input ask for a stop.

        The parent holds the other end and never writes, so it ends when the parent does, however that ends. A process
        that does not manage to stop by itself then is ended after two minutes.
        """
        threading.Thread(target=self._watch_input, name="parent watch", daemon=True).start()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """Take note of the signal."""
        self._event.set()

    def _watch_input(self) -> None:
        """Wait for the end of standard input."""
        while os.read(sys.stdin.fileno(), 1024):
            continue
        self._event.set()
        watchdog = threading.Timer(_ORPHAN_GRACE_S, os._exit, args=(EXIT_STOPPED,))
        watchdog.daemon = True
        watchdog.start()
