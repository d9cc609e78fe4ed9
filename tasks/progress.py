"""Progress bars in the Prefect UI: made only for what takes long, and moved rarely, since every move is a request."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from ospo_core.artifacts.storage_errors import redact
from ospo_core.schema import StageName
from ospo_core.stages.progress import Event, listening
from tasks.run_log import run_logger

PATIENCE = 2.0
"""Seconds that something takes before it gets a bar."""
STEP = 5.0
"""Per cent by which a bar grows before it is moved, which is at most twenty times."""
LONGEST_WAIT = 60.0
"""Seconds after which a bar is moved by less."""
_ALMOST = 99.0


class Bar:
    """A bar that appears when it is first moved; a server that does not answer stops the bar, not what it measures.

    Args:
        key: of its artifact.
        what: what it measures, in words.
        patience: seconds before it appears.
    """

    def __init__(self, key: str, what: str, patience: float = PATIENCE) -> None:
        self.key, self.what, self.patience = key, what, patience
        self.shown = 0.0
        self._identity: UUID | None = None
        self._last = time.monotonic()

    def move(self, done: int, total: int, words: str) -> None:
        """Show that `done` of `total` is done, if that is worth a request.

        A bar is full only after `finish`: more units may follow when all known ones are done.
        """
        share, waited = min(_ALMOST, 100.0 * done / max(total, 1)), time.monotonic() - self._last
        if waited < self.patience or (share - self.shown < STEP and waited < LONGEST_WAIT):
            return
        self._show(share, f"{self.what}: {words}")

    def finish(self) -> None:
        """Fill the bar, if there is one."""
        if self._identity is not None:
            self._show(100.0, f"{self.what}: done")

    def _show(self, share: float, words: str) -> None:
        self.shown, self._last = share, time.monotonic()
        try:
            if self._identity is not None:
                update_progress_artifact(self._identity, share, description=words)
                return
            identity = create_progress_artifact(share, key=self.key, description=words)
        except httpx.HTTPError as error:
            run_logger().warning("No progress shown, the server refused it: %s", redact(str(error)))
            return
        if not isinstance(identity, UUID):
            raise TypeError("a progress artifact was awaited in synchronous code")
        self._identity = identity


@contextmanager
def steps_counted(stage: StageName, key: str, patience: float = PATIENCE) -> Iterator[Bar]:
    """Count the steps of one long unit of a stage in a bar while the block runs."""
    bar = Bar(key, stage.value, patience)

    def hear(event: Event) -> None:
        if event.stage is stage and event.kind == "advanced" and event.total > 1:
            note = f", {event.note}" if event.note else ""
            bar.move(event.done, event.total, f"step {event.done} of {event.total}{note}")

    with listening(hear):
        yield bar
    bar.finish()


@contextmanager
def units_counted(stage: StageName, key: str, patience: float = PATIENCE) -> Iterator[Bar]:
    """Count the units of a stage in a bar of the flow while the block runs; a stage of one unit gets none.

    Training has one unit, whose steps are counted where it runs.
    """
    bar = Bar(key, stage.value, patience)

    def hear(event: Event) -> None:
        counted = event.stage is stage is not StageName.TRAINING
        if counted and event.kind in ("started", "advanced") and event.total > 1:
            bar.move(event.done, event.total, f"{event.done} of {event.total} shards")

    with listening(hear):
        yield bar
    bar.finish()
