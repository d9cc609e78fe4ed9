"""Progress bars in the Prefect UI: only for long work, and updated rarely, since every update is a request."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal
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
"""Percentage points by which a bar must grow to be updated, so that there are at most twenty updates."""
LONGEST_WAIT = 60.0
"""Seconds after which a smaller step is shown too."""


class Bar:
    """A bar that appears with its first update; a server that does not answer stops the bar, not the work."""

    def __init__(self, key: str, what: str, patience: float = PATIENCE) -> None:
        self.key, self.what, self.patience = key, what, patience
        self.shown = 0.0
        self._identity: UUID | None = None
        self._last = time.monotonic()

    def move(self, done: int, total: int, words: str) -> None:
        """Show `done` of `total`, if that is worth a request; only `finish` fills the bar, since more may follow."""
        share, waited = min(99.0, 100.0 * done / max(total, 1)), time.monotonic() - self._last
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
def progress_bar(stage: StageName, unit: Literal["step", "shard"], patience: float = PATIENCE) -> Iterator[Bar]:
    """Show the shards of a stage or the steps of the training in a bar while the block runs; a single one gets none."""
    suffix = "progress" if unit == "step" else "shards"
    bar = Bar(f"{artifact_key(stage)}-{suffix}", stage.value, patience)

    def hear(event: Event) -> None:
        if event.stage is stage and event.kind in ("started", "advanced") and event.total > 1:
            note = f", {event.note}" if event.note else ""
            bar.move(event.done, event.total, f"{unit} {event.done} of {event.total}{note}")

    with listening(hear):
        yield bar
    bar.finish()
