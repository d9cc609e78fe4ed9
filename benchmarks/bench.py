"""All figures of speed in one table: the round's own code against the published way, on this machine.

    make bench
    make bench ARGS="--only images text --out bench.json --markdown docs/results.md"
    make bench ARGS="--only round --root runs/shapes"

Everything runs in turn in one process, A and B alternately; ratios are medians over turns. The machine should be idle.
With `--root`, the storage of a finished default round, the round's own seconds are read and it is run again from its
cache.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.contest import Row, this_machine
from benchmarks.gpu_points import decode_profile
from benchmarks.overhead import copied
from benchmarks.rows import FULL, GROUPS, QUICK, Machine
from benchmarks.workloads import world
from ospo_core.artifacts.storage import Storage
from ospo_core.rounds.lineage import all_manifests

logger = logging.getLogger("benchmarks.bench")

WORK_SECONDS, CACHED_SECONDS = 150.0, 3.0
BEGIN, END = "<!-- make bench: begin -->", "<!-- make bench: end -->"
COLUMNS = ("figure", "against", "ratio", "spread", "goal", "ours", "theirs", "share of floor", "")


def measure(only: Sequence[str], machine: Machine) -> dict[str, Any]:
    """Measure the groups; a group that fails leaves its reason among `failures`."""
    report: dict[str, Any] = {"machine": this_machine(), "rows": [], "failures": {}, "step": None}
    for group in only:
        for part in {**GROUPS, "round": (rounds,)}[group]:
            began = time.monotonic()
            name = f"{group}: {part.__name__}"
            try:
                for row in part(machine):
                    report["rows"].append(asdict(row) | {"meets_goal": row.meets_goal})
                    logger.info("%s", " | ".join(cells(row)))
            except Exception as error:  # whatever it is, the other figures are measured
                logger.exception("%s failed", name)
                report["failures"][name] = f"{type(error).__name__}: {error}"
            logger.info("%s took %.0f s", name, time.monotonic() - began)
    if "images" in only:
        report["step"] = operators_per_step(machine)
    return report


def rounds(machine: Machine) -> Iterator[Row]:
    """Read how long the stages of a finished round took, and run the round again, all from its cache."""
    root = machine.root
    if root is None:
        return
    work = sum(manifest.seconds for manifest in all_manifests(Storage(str(root))))
    if work:
        yield Row("work of `make round`, s", "", work, work, work, WORK_SECONDS, work, None)
    with tempfile.TemporaryDirectory() as folder:
        copy = copied(str(root), Path(folder) / "runs")
        command = [str(Path(sys.executable).parent / "ospo"), "round", "--set", f"storage.root={copy}"]
        environment = {**os.environ, "PREFECT_HOME": str(Path(folder) / "prefect")}
        seconds = []
        for _ in range(4):  # the first one makes Prefect's database
            began = time.perf_counter()
            subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - began)
    counted = seconds[1:]
    middle = statistics.median(counted)
    yield Row("cached second round, s", "", middle, min(counted), max(counted), CACHED_SECONDS, middle, None)


def operators_per_step(machine: Machine) -> dict[str, Any]:
    """Count the operators of a decode step with guidance (on a GPU, launches), and the bytes it allocates."""
    figures = decode_profile(machine.embedded, [item.prompt for item in world(8)])
    return {name: figures[name] for name in ("operators", "mb_allocated", "step_ms_profiled", "top_by_host_time")}


def cells(row: Row) -> list[str]:
    """Return the cells of one line."""
    share = "" if row.floor_share is None else f"{row.floor_share:.0%}"
    goal = "" if row.goal is None else f"{row.goal:g}{'x' if row.theirs is not None else ''}"
    if row.theirs is None:
        return [
            row.figure,
            row.against,
            "",
            f"{row.low:.1f} to {row.high:.1f}",
            goal,
            f"{row.ours:.1f}",
            "",
            "",
            _mark(row),
        ]
    spread = f"{_short(row.low)} to {_short(row.high)}"
    return [
        row.figure,
        row.against,
        f"{_short(row.ratio)}x",
        spread,
        goal,
        _short(row.ours),
        _short(row.theirs),
        share,
        _mark(row),
    ]


def _mark(row: Row) -> str:
    """Return whether the goal is met, in a word."""
    return {None: "", True: "met", False: "missed"}[row.meets_goal]


def _short(value: float) -> str:
    """Return three digits of a number."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def markdown(report: dict[str, Any]) -> str:
    """Return the table for docs/results.md."""
    rows = [Row(**{name: value for name, value in row.items() if name != "meets_goal"}) for row in report["rows"]]
    lines = [COLUMNS, ["---"] * len(COLUMNS), *map(cells, rows)]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    step = report.get("step") or {}
    if "operators" in step:
        text += f"\n\nA decode step with guidance calls {step['operators']:.0f} operators"
        text += f" and allocates {step['mb_allocated']:.2f} MB (embedded model, batch 8)."
    return f"Measured by `make bench` on {report['machine']}.\n\n{text}\n"


def into(document: Path, text: str) -> None:
    """Replace what stands between the two marks of a document, or all of a file that has none."""
    whole = document.read_text(encoding="utf-8") if document.exists() else ""
    if BEGIN in whole and END in whole:
        before, after = whole.split(BEGIN, 1)[0], whole.split(END, 1)[1]
        text = f"{before}{BEGIN}\n\n{text}\n{END}{after}"
    document.write_text(text, encoding="utf-8")


def show(report: dict[str, Any], console: Console) -> None:
    """Print the table."""
    table = Table(*COLUMNS, title=f"{report['machine']}")
    for row in report["rows"]:
        table.add_row(*cells(Row(**{name: value for name, value in row.items() if name != "meets_goal"})))
    console.print(table)
    if report["step"]:
        console.print({name: value for name, value in report["step"].items() if name != "top_by_host_time"})
    for name, reason in report["failures"].items():
        console.print(f"{name} failed: {reason}")


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = (*GROUPS, "round")
    parser.add_argument("--only", nargs="+", choices=known, default=list(known), help="which figures")
    parser.add_argument("--quick", action="store_true", help="tiny sizes and one turn, to try the benchmark itself")
    parser.add_argument("--root", type=Path, help="storage of a finished default round")
    parser.add_argument("--out", type=Path, help="report (JSON)")
    parser.add_argument("--markdown", type=Path, help="file for the table; between the marks, if it has any")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    report = measure(options.only, Machine(QUICK if options.quick else FULL, options.root))
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if options.markdown:
        into(options.markdown, markdown(report))
    show(report, Console(width=200))
    sys.exit(bool(report["failures"]))


if __name__ == "__main__":
    main()
