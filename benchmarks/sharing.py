"""Memory and time of export and import of pairs, which must not need more memory for more pairs.

    python -m benchmarks.sharing
    python -m benchmarks.sharing --sizes 1000 100000

Each size runs in its own process. Pairs have pictures of 64 x 64 and image tokens that are kept, so no model is loaded.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.measuring import Clock
from ospo_core.artifacts.manifest import Manifest, ShardEntry
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.tables import write_shard
from ospo_core.config.sections import StorageConfig
from ospo_core.schema import TABLES, Category, StageName, table_from_rows
from ospo_core.sharing.cards import Origin, Provenance
from ospo_core.sharing.dataset import export_dataset
from ospo_core.sharing.importing import import_pairs

SIZES = (1000, 100_000)
_SHARD, _TOKENS, _CODES, _SIDE, _PICTURES = 256, 16, 512, 64, 64
_MODEL = "0" * 64


@dataclass(frozen=True)
class Result:
    """One size.

    Args:
        size: number of pairs.
        exported: seconds of the export.
        imported: seconds of the import.
        before: MiB of memory before both.
        peak: MiB of memory at the peak.
        written: MB of the exported folder.
    """

    size: int
    exported: float
    imported: float
    before: float
    peak: float
    written: float


def measure(size: int) -> Result:
    """Export and import `size` pairs in this process."""
    exporting, importing = Clock(), Clock()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        storage = Storage(str(root / "store"))
        manifests = {StageName.PAIRS: _pairs(storage, size), StageName.PROMPTS: _prompts()}
        before = _peak_mib()
        facts = Provenance(round="", profile="synthetic", seed=0, model=Origin(_MODEL, ""), family="shapes")
        with exporting.running():
            tables = export_dataset(storage, manifests, root / "out", [], facts)
        config = StorageConfig(root=storage.root, scratch=str(root / "scratch"))
        with importing.running():
            found = import_pairs(root / "out", storage, _model(), {_MODEL}, config)
    if found.rows != size or found.tokens_kept != size:
        raise SystemExit(f"{found.rows} of {size} pairs came back")
    return Result(size, exporting.wall, importing.wall, before, _peak_mib(), tables[0].file_bytes / 1e6)


def measure_apart(size: int) -> Result:
    """Run one size in its own process."""
    command = [sys.executable, "-m", "benchmarks.sharing", "--measure", str(size)]
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=root)
    return Result(**json.loads(done.stdout))


def _model() -> Any:
    """Return what an import asks of a model when all tokens are kept."""
    geometry = SimpleNamespace(height=_SIDE, width=_SIDE, tokens=_TOKENS, codes=_CODES)
    return SimpleNamespace(geometry=geometry, digest=_MODEL, family=SimpleNamespace(name="shapes"))


def _prompts() -> Manifest:
    """Return a manifest without rows: an export of pairs alone reads no prompts."""
    return Manifest(stage=StageName.PROMPTS, fingerprint="1" * 64, version=1, rows=0, items_in=0)


def _pairs(storage: Storage, size: int) -> Manifest:
    pictures, categories = [_picture(seed) for seed in range(_PICTURES)], list(Category)
    entries: list[ShardEntry] = []
    for start in range(0, size, _SHARD):
        numbers = range(start, min(size, start + _SHARD))
        rows = [_row(number, pictures, categories[number % len(categories)]) for number in numbers]
        key = f"pairs/{'2' * 64}/part-{len(entries):05d}.parquet"
        entries.append(write_shard(storage, key, table_from_rows("pairs", rows)))
    return Manifest(
        stage=StageName.PAIRS, fingerprint="2" * 64, version=1, shards=tuple(entries), rows=size, items_in=size
    )


def _row(number: int, pictures: list[bytes], category: Category) -> dict[str, Any]:
    generator = np.random.default_rng(number)
    row = {**dict.fromkeys(TABLES["pairs"].names), "item_id": f"{number:016x}", "category": category.value}
    row |= {"prompt": f"a red circle above {number} stars", "negative_prompt": f"a blue circle above {number} stars"}
    for side in ("chosen", "rejected"):
        row[f"{side}_tokens"] = generator.integers(0, _CODES, _TOKENS).tolist()
        row[f"{side}_image"] = {"bytes": pictures[int(generator.integers(len(pictures)))], "path": None}
    return row


def _picture(seed: int) -> bytes:
    """Return noise, which does not compress: about 12 kB."""
    buffer = BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (_SIDE, _SIDE, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def _peak_mib() -> float:
    """Return the peak resident memory since this program began, not that of the process that started it, in MiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    """Measure according to the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of pairs")
    parser.add_argument("--measure", type=int, metavar="SIZE", help="one size in this process, as JSON")
    options = parser.parse_args()
    if options.measure:
        sys.stdout.write(json.dumps(asdict(measure(options.measure))))
        return
    table = Table("Pairs", "Export", "Import", "Folder", "MiB", "at start")
    for size in options.sizes:
        one = measure_apart(size)
        times = f"{one.exported:.1f} s", f"{one.imported:.1f} s"
        table.add_row(f"{size:,}", *times, f"{one.written:.0f} MB", f"{one.peak:.0f}", f"{one.before:.0f}")
    Console(width=None if sys.stdout.isatty() else 140).print(table)


if __name__ == "__main__":
    main()
