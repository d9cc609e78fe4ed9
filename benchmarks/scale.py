"""How the parts that see every prompt scale: contamination check, duplicates, selection, manifests.

    python -m benchmarks.scale
    python -m benchmarks.scale --sizes 10000 100000 --parts duplicates
    python -m benchmarks.scale --shard-size 1024

Each part and size runs in its own process, so that its memory is measured alone. Generating the prompts and tables does
not count. The outcome is checked against the input (`benchmarks.synthetic`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.many_shards import many_shards
from benchmarks.measuring import Clock, growth, peak_mib
from benchmarks.synthetic import held_out, prompt_stream, selection_shards
from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.tables import encode_table, write_shard
from ospo_core.config.sections import PromptsConfig, SelectionConfig, StorageConfig
from ospo_core.prompts.filters import CONTAMINATED, DUPLICATE, NEAR_DUPLICATE, ContaminationCheck
from ospo_core.schema import StageName, SubCategory, table_from_rows
from ospo_core.selection.pairs import build_pairs
from ospo_core.stages.merging import accepted_shards, merge

SIZES = (10_000, 100_000, 1_000_000)
NEAR = PromptsConfig().near_duplicate_similarity
SECONDS, MIB = 60, 2048
"""Limits for a million prompts: seconds of all parts together, and memory of each part."""


@dataclass(frozen=True)
class Result:
    """One part at one size.

    Args:
        part: its name.
        size: number of prompts.
        wall: seconds.
        cpu: processor seconds.
        before: MiB of memory before the part began.
        peak: MiB of memory at its peak.
        outcome: a summary of the outcome.
    """

    part: str
    size: int
    wall: float
    cpu: float
    before: float
    peak: float
    outcome: str


def contamination(size: int, shard_size: int, clock: Clock) -> str:
    """Compare prompts with the held-out ones."""
    del shard_size  # prompts are compared one by one
    stream = prompt_stream(size)
    with clock.running():
        check = ContaminationCheck(held_out())
        found = Counter(map(check, stream.prompts))
    _expect("contaminated", found[CONTAMINATED], stream.planted["contaminated"])
    return f"{found[CONTAMINATED]} contaminated"


def duplicates(size: int, shard_size: int, clock: Clock) -> str:
    """Read slices of prompts, drop duplicates and near-duplicates, and encode the others as shards."""
    stream, check = prompt_stream(size), ContaminationCheck(held_out())
    prompts = [prompt for prompt in stream.prompts if not check(prompt)]
    with tempfile.TemporaryDirectory() as folder:
        storage = Storage(folder)
        written = _slices(storage, prompts, shard_size)
        with clock.running():
            merged = merge(storage, written, {SubCategory.COLOR_1: size}, NEAR)
            rows = 0
            for table in accepted_shards(storage, written, merged, shard_size):
                encode_table(table)
                rows += table.num_rows
    _expect("rows and drops", rows + merged.drops.total(), len(prompts))
    exact, near = merged.drops[DUPLICATE], merged.drops[NEAR_DUPLICATE]
    _expect("duplicates", exact, stream.planted["exact"])
    _expect("near duplicates", near, stream.planted["near"], slack=1e-4 * size)  # a few sentences are similar by chance
    return f"{exact} exact, {near} near"


def selection(size: int, shard_size: int, clock: Clock) -> str:
    """Select the pairs shard by shard, with six images per prompt, and encode the tables."""
    pairs, drops = 0, 0
    for tables in selection_shards(size, shard_size):
        with clock.running():
            made = build_pairs(tables.perturbations, tables.images, tables.scores, SelectionConfig())
            encode_table(made.table)
        pairs, drops = pairs + made.table.num_rows, drops + made.drops.total()
    _expect("pairs and drops", pairs + drops, size)
    return f"{pairs} pairs"


def manifests(size: int, shard_size: int, clock: Clock) -> str:
    """Run a stage that does almost nothing over all shards: look up, publish; then load and verify."""
    with tempfile.TemporaryDirectory() as folder:
        shards = many_shards(Path(folder), -(-size // shard_size), clock)
    return f"{shards} shards"


PARTS: dict[str, Callable[[int, int, Clock], str]] = {
    part.__name__: part for part in (contamination, duplicates, selection, manifests)
}


def measure(part: str, size: int, shard_size: int) -> Result:
    """Run one part in this process."""
    clock = Clock()
    before = peak_mib()
    outcome = PARTS[part](size, shard_size, clock)
    return Result(part, size, clock.wall, clock.cpu, before, peak_mib(), outcome)


def measure_apart(part: str, size: int, shard_size: int) -> Result:
    """Run one part in its own process."""
    command = [sys.executable, "-m", "benchmarks.scale", "--measure", part, str(size)]
    command += ["--shard-size", str(shard_size)]
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=root)
    return Result(**json.loads(done.stdout))


def _slices(storage: Storage, prompts: Sequence[str], shard_size: int) -> Manifest:
    """Store prompts as slices with the size of a shard."""
    entries = []
    extra = {"sub_category": SubCategory.COLOR_1.value, "wave": 0, "short": 0}
    same = {"category": "attribute", "sub_category": SubCategory.COLOR_1.value, "concepts": [], "relations": []}
    for start in range(0, len(prompts), shard_size):
        texts = enumerate(prompts[start : start + shard_size], start)
        rows = [{"item_id": f"{number:016x}", "prompt": text, **same} for number, text in texts]
        key = f"prompts/{'0' * 64}/raw-{start // shard_size:05d}.parquet"
        entries.append(write_shard(storage, key, table_from_rows("prompts", rows), extra=extra))
    return Manifest(stage=StageName.PROMPTS, fingerprint="0" * 64, version=1, shards=tuple(entries), rows=0, items_in=0)


def _expect(what: str, found: int, wanted: int, slack: float = 0.0) -> None:
    """Exit if the outcome does not match the input."""
    if abs(found - wanted) > slack:
        raise SystemExit(f"{what}: {found}, expected {wanted}")


def show(results: Sequence[Result], console: Console) -> None:
    """Print one section per part, and the sums."""
    limits = f"Limits for a million prompts: {SECONDS} s in all, {MIB} MiB per part"
    table = Table("Part", "Prompts", "Wall", "CPU", "Prompts / s", "Growth", "MiB", "at start", "Outcome", title=limits)
    for part in dict.fromkeys(result.part for result in results):
        rows = [result for result in results if result.part == part]
        exponents = ["", *(f"{step:.2f}" for step in growth([r.size for r in rows], [r.cpu for r in rows]))]
        for row, exponent in zip(rows, exponents, strict=True):
            rate = f"{row.size / row.cpu:,.0f}" if row.cpu else ""
            memory = f"{row.peak:.0f}", f"{row.before:.0f}"
            times = f"{row.wall:.2f} s", f"{row.cpu:.2f} s"
            table.add_row(part, f"{row.size:,}", *times, rate, exponent, *memory, row.outcome)
        table.add_section()
    for size in sorted({result.size for result in results}):
        rows = [result for result in results if result.size == size]
        wall, cpu = (f"{sum(getattr(row, name) for row in rows):.2f} s" for name in ("wall", "cpu"))
        table.add_row("all", f"{size:,}", wall, cpu, "", "", f"{max(row.peak for row in rows):.0f}", "", "")
    console.print(table)


def main() -> None:
    """Measure according to the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of prompts")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--shard-size", type=int, default=StorageConfig().shard_size, help="prompts per shard")
    parser.add_argument("--measure", nargs=2, metavar=("PART", "SIZE"), help="one part in this process, as JSON")
    options = parser.parse_args()
    if options.measure:
        sys.stdout.write(json.dumps(asdict(measure(options.measure[0], int(options.measure[1]), options.shard_size))))
        return
    results = [measure_apart(part, size, options.shard_size) for part in options.parts for size in options.sizes]
    show(results, Console(width=None if sys.stdout.isatty() else 140))


if __name__ == "__main__":
    main()
