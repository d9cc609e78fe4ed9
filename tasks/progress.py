"""Progress bars in the Prefect UI: only for what takes long, and updated rarely, since every update is a request."""

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
from tasks.prefect_ui import artifact_key, run_logger

PATIENCE = 2.0
"""Seconds before a bar appears."""
STEP = 5.0
"""Percentage points by which a bar must grow to be updated: at most twenty times."""
LONGEST_WAIT = 60.0
"""Seconds after which a bar is updated for less."""
_ALMOST = 99.0


class Bar:
    """A bar that appears with its first update; a server that does not answer stops the bar, not the work.

    Args:
        key: of its artifact.
        what: what it measures.
        patience: seconds before it appears.
    """

    def __init__(self, key: str, what: str, patience: float = PATIENCE) -> None:
        self.key, self.what, self.patience = key, what, patience
        self.shown = 0.0
        self._identity: UUID | None = None
        self._last = time.monotonic()

    def move(self, done: int, total: int, words: str) -> None:
        """Show that `done` of `total` is done, if that is worth a request.

        A bar is full only after `finish`, since more units may follow when all known ones are done.
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
def steps_counted(stage: StageName, patience: float = PATIENCE) -> Iterator[Bar]:
    """Show the steps of the training in a bar while the block runs."""
    bar = Bar(f"{artifact_key(stage)}-progress", stage.value, patience)

    def hear(event: Event) -> None:
        if event.stage is stage and event.kind == "advanced" and event.total > 1:
            note = f", {event.note}" if event.note else ""
            bar.move(event.done, event.total, f"step {event.done} of {event.total}{note}")

    with listening(hear):
        yield bar
    bar.finish()


@contextmanager
def shards_counted(stage: StageName, patience: float = PATIENCE) -> Iterator[Bar]:
    """Show the shards of a stage in a bar of the flow while the block runs; a stage with a single shard gets none."""
    bar = Bar(f"{artifact_key(stage)}-shards", stage.value, patience)

    def hear(event: Event) -> None:
        if event.stage is stage and event.kind in ("started", "advanced") and event.total > 1:
            bar.move(event.done, event.total, f"{event.done} of {event.total} shards")

    with listening(hear):
        yield bar
    bar.finish()
