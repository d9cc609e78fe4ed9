"""Metrics of training as JSON lines: one line a step, appended and flushed, read while they grow."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

Metrics = dict[str, float]


class MetricsWriter:
    """Appends one line a step.

    Args:
        path: the file; lines of steps after `keep_until` are removed first, as is a line that was cut off by a kill.
        keep_until: the step that training resumes from; 0 starts the file anew.
    """

    def __init__(self, path: Path, keep_until: int = 0) -> None:
        kept = [row for row in read_metrics(path) if row["step"] <= keep_until]
        fresh = path.with_suffix(".tmp")
        fresh.write_text("".join(_line(row) for row in kept), encoding="utf-8")
        os.replace(fresh, path)
        self._file = path.open("a", encoding="utf-8")

    def write(self, metrics: Mapping[str, float]) -> None:
        """Append one step; a value that is not finite is left out, since JSON has no word for it."""
        self._file.write(_line(metrics))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class MetricsFollower:
    """Reads the lines that were added since the last look, each step once, also when the file was rewritten."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last_step = 0

    def new(self) -> list[Metrics]:
        """Return the steps that were completed since the last call, in order."""
        rows = [row for row in read_metrics(self._path) if row["step"] > self._last_step]
        if rows:
            self._last_step = int(rows[-1]["step"])
        return rows


def read_metrics(path: Path) -> list[Metrics]:
    """Return all complete lines of a metrics file; none where there is no file yet."""
    if not path.exists():
        return []
    return list(_complete_lines(path.read_text(encoding="utf-8")))


def _complete_lines(text: str) -> Iterator[Metrics]:
    """Yield the lines that end in a newline; the last one may still be in the making."""
    for line in text.splitlines(keepends=True):
        if line.endswith("\n"):
            row: Metrics = json.loads(line)
            yield row


def _line(metrics: Mapping[str, float]) -> str:
    """Write one step as a line of JSON."""
    return json.dumps({name: value for name, value in metrics.items() if math.isfinite(value)}) + "\n"
