"""Metrics of training as JSON lines: one line per step, appended and flushed, read while the file grows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from ospo_core.artifacts.atomic_write import atomic_file

Metrics = dict[str, float]


class MetricsWriter:
    """Appends one line per step.

    Args:
        path: the file; lines of steps after `keep_until` and a line cut off by a kill are removed first.
        keep_until: the step that training resumes from; 0 starts with an empty file.
    """

    def __init__(self, path: Path, keep_until: int = 0) -> None:
        kept = [row for row in read_metrics(path) if row["step"] <= keep_until]
        with atomic_file(path) as temporary:
            temporary.write_text("".join(_line(row) for row in kept), encoding="utf-8")
        self._file = path.open("a", encoding="utf-8")

    def write(self, metrics: Mapping[str, float]) -> None:
        """Append one step; values that are not finite are omitted, since JSON cannot hold them."""
        self._file.write(_line(metrics))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class MetricsFollower:
    """Reads the lines added since the last call, each step once, even if the file was rewritten in between."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last_step = 0

    def new(self) -> list[Metrics]:
        """Return the steps completed since the last call, in order."""
        rows = [row for row in read_metrics(self._path) if row["step"] > self._last_step]
        if rows:
            self._last_step = int(rows[-1]["step"])
        return rows


def read_metrics(path: Path) -> list[Metrics]:
    """Return all complete lines of a metrics file; none if the file does not exist yet."""
    if not path.exists():
        return []
    return list(_complete_lines(path.read_text(encoding="utf-8")))


def _complete_lines(text: str) -> Iterator[Metrics]:
    """Yield the lines that end in a newline; the last line may still be incomplete."""
    for line in text.splitlines(keepends=True):
        if line.endswith("\n"):
            row: Metrics = json.loads(line)
            yield row


def _line(metrics: Mapping[str, float]) -> str:
    """Return one step as a line of JSON."""
    return json.dumps({name: value for name, value in metrics.items() if math.isfinite(value)}) + "\n"
