"""Progress on standard error while a flow runs: bars in a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from ospo_core.schema import StageName
from ospo_core.stages.progress import Event, Listener

Say = Callable[[str], None]


@contextmanager
def progress_bars() -> Iterator[tuple[Listener, Say]]:
    """Yield a listener that shows the events of stages, and a function that shows a short text."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(console), lambda words: None
        return
    progress = Progress(
        TextColumn("{task.description:<14}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", style="dim", markup=False),
        console=console,
        transient=True,
    )
    with progress:
        bars = _Bars(progress)
        yield bars.on_event, bars.say


class _Bars:
    """One bar per stage, created at its first event."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bars: dict[StageName, TaskID] = {}
        self._words: TaskID | None = None

    def say(self, words: str) -> None:
        """Show a short text with a pulsing bar; an empty text removes it."""
        if self._words is not None:
            self._progress.remove_task(self._words)
        self._words = self._progress.add_task(words, total=None, note="") if words else None

    def on_event(self, event: Event) -> None:
        """Update the bar of the event's stage."""
        if event.kind == "started" and event.done == 0 and event.stage in self._bars:
            self._progress.remove_task(self._bars.pop(event.stage))
        bar = self._bars.get(event.stage)
        if bar is None:
            bar = self._progress.add_task(event.stage.value, total=event.total or 1, note="")
            self._bars[event.stage] = bar
        if event.kind in ("cached", "finished"):
            total = self._progress.tasks[self._progress.task_ids.index(bar)].total or 1
            note = "cached" if event.kind == "cached" else ""
            self._progress.update(bar, completed=total, note=note)
        else:
            self._progress.update(bar, completed=event.done, total=event.total, note=event.note)


def _lines(console: Console) -> Listener:
    """Return a listener that writes one line when a stage starts, finishes, or is found cached."""

    def on_event(event: Event) -> None:
        if event.kind == "started":
            console.print(f"{event.stage}: {event.total - event.done} to do", highlight=False)
        elif event.kind != "advanced":
            console.print(f"{event.stage}: {event.kind}", highlight=False)

    return on_event
