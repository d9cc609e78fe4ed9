"""How long `ospo export` takes for a large round, and how much memory: both by the number of pairs.

    python -m benchmarks.export
    python -m benchmarks.export --pairs 1000 1000000

Pairs are made up, with pictures of random bytes (`benchmarks.browse`). Every export runs in a process of its own, so
that its memory is measured alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.browse import ROUND, make_round
from benchmarks.measuring import peak_mib
from ospo_core.artifacts.storage import Storage
from ospo_core.rounds.lineage import all_manifests
from ospo_core.sharing import Part
from ospo_core.sharing.cards import Origin, Provenance
from ospo_core.sharing.dataset import export_dataset


def measure(root: Path) -> dict[str, float]:
    """Return the seconds of an export with preference rows, MiB of memory before and at the peak, and MB written."""
    storage, out = Storage(str(root / "store")), root / "out"
    manifests = {one.stage: one for one in all_manifests(storage)}
    provenance = Provenance(ROUND, "large", 0, Origin("a" * 64, "nowhere"), "shapes")
    before, start = peak_mib(), time.perf_counter()
    export_dataset(storage, manifests, out, [Part.TRL], provenance)
    seconds, written = (
        time.perf_counter() - start,
        sum(path.stat().st_size for path in out.rglob("*") if path.is_file()),
    )
    return {"seconds": seconds, "before": before, "peak": peak_mib(), "written": written / 1e6}


def main() -> None:
    """Make a round of each size, export it in a process of its own, and show a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--root", type=Path, help="export the round in this folder and print the figures as JSON")
    options = parser.parse_args()
    if options.root:
        sys.stdout.write(json.dumps(measure(options.root)))
        return
    table = Table("Pairs", "Seconds", "Memory before, MiB", "Peak, MiB", "Written, MB", title="ospo export --with trl")
    for pairs in options.pairs:
        with tempfile.TemporaryDirectory() as folder:
            make_round(Storage(f"{folder}/store"), pairs, 256, 2000)
            command = [sys.executable, "-m", "benchmarks.export", "--root", folder]
            found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        figures = (found["before"], found["peak"], found["written"])
        table.add_row(str(pairs), f"{found['seconds']:.1f}", *(f"{figure:.0f}" for figure in figures))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
