"""How quickly `ospo browse` shows a large round, and how much memory each page takes.

    python -m benchmarks.browse
    python -m benchmarks.browse --pairs 1000000 --picture-bytes 500

Pairs are made up, with pictures of random bytes. Every page is asked for twice in a process of its own, so that its
memory is measured alone; the first time includes reading what later pages find in memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table
from starlette.testclient import TestClient

from benchmarks.measuring import peak_mib
from ospo.browse.site import build_site
from ospo_core.artifacts.checksummed_json import dump_checksummed
from ospo_core.artifacts.manifest import Manifest, ShardEntry, prefix_of, publish_manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.tables import write_shard
from ospo_core.config import RoundConfig
from ospo_core.rounds.records import RoundRecord
from ospo_core.schema import TABLES, PerturbationKind, StageName, SubCategory, category_of
from ospo_core.stages.attempts import StageRecord, record_stage
from ospo_core.stages.model_ref import ModelRef

ROUND = "0123456789ab"
_ADDRESS = "http://127.0.0.1:8350"
_PNG = b"\x89PNG\r\n\x1a\n"
_COLOURS = ("red", "blue", "green", "yellow", "purple", "orange")
_QUESTIONS = 4

PAGES = {
    "pairs, as stored": f"/rounds/{ROUND}/pairs",
    "pairs, page 2000": f"/rounds/{ROUND}/pairs?page=2000",
    "pairs, smallest gap": f"/rounds/{ROUND}/pairs?order=narrow",
    "pairs, most doubtful": f"/rounds/{ROUND}/pairs?order=doubt",
    "pairs, by text and score": f"/rounds/{ROUND}/pairs?text=purple&least=0.5&category=layout",
    "one item": f"/rounds/{ROUND}/items/{77:016x}",
    "one picture": f"/pictures/pairs/{int(list(StageName).index(StageName.PAIRS)):064x}/chosen_image/77",
    "the round": f"/rounds/{ROUND}",
}
"""Name to address of the pages that are measured."""


def make_round(storage: Storage, pairs: int, shard: int, picture_bytes: int) -> None:
    """Publish a recorded round with the tables `prompts` and `pairs`."""
    rng = np.random.default_rng(0)
    record = RoundRecord(
        id=ROUND,
        kind="round",
        config=RoundConfig(name="large").model_dump(mode="json"),
        model=ModelRef(digest="a" * 64, source="nowhere"),
    )
    storage.create(f"rounds/{ROUND}/round.json", dump_checksummed(record))
    entries: dict[StageName, list[ShardEntry]] = {StageName.PROMPTS: [], StageName.PAIRS: []}
    for number, table in enumerate(_pair_shards(rng, pairs, shard, picture_bytes)):
        for stage in entries:
            wanted = table if stage is StageName.PAIRS else _prompts(table)
            key = f"{prefix_of(stage, _fingerprint(stage))}/part-{number:05d}.parquet"
            entries[stage].append(write_shard(storage, key, wanted))
    for stage, shards in entries.items():
        manifest = Manifest(
            stage=stage, fingerprint=_fingerprint(stage), version=1, shards=tuple(shards), rows=pairs, items_in=pairs
        )
        publish_manifest(storage, manifest)
        record_stage(
            storage, ROUND, StageRecord(stage=stage, fingerprint=manifest.fingerprint, base=manifest.fingerprint)
        )


def measure(root: str, page: str) -> dict[str, float]:
    """Return seconds of the first and of the second request for a page, and MiB of memory before and at the peak.

    Raises:
        SystemExit: the page is not there.
    """
    client, before = TestClient(build_site(Storage(root)), base_url=_ADDRESS), peak_mib()
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        answer = client.get(PAGES[page])
        seconds.append(time.perf_counter() - start)
        if answer.status_code != 200:
            raise SystemExit(f"{page}: {answer.status_code}")
    return {"first": seconds[0], "again": seconds[1], "before": before, "peak": peak_mib()}


def main() -> None:
    """Make the round, measure every page in a process of its own, and show a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--shard-size", type=int, default=256)
    parser.add_argument("--picture-bytes", type=int, default=2000)
    parser.add_argument("--page", choices=PAGES, help="measure one page of an existing root, as JSON")
    parser.add_argument("--root", help="root of that round")
    options = parser.parse_args()
    if options.page:
        sys.stdout.write(json.dumps(measure(options.root, options.page)))
        return
    with tempfile.TemporaryDirectory() as folder:
        make_round(Storage(folder), options.pairs, options.shard_size, options.picture_bytes)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()) / 1e6
        table = Table(title=f"{options.pairs} pairs, {size:.0f} MB", title_justify="left")
        for heading in ("Page", "First, s", "Again, s", "Memory before, MiB", "Peak, MiB"):
            table.add_column(heading, justify="left" if heading == "Page" else "right")
        for page in PAGES:
            command = [sys.executable, "-m", "benchmarks.browse", "--page", page, "--root", folder]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            figures = (
                f"{found['first']:.2f}",
                f"{found['again']:.2f}",
                f"{found['before']:.0f}",
                f"{found['peak']:.0f}",
            )
            table.add_row(page, *figures)
    Console(width=120).print(table)


def _fingerprint(stage: StageName) -> str:
    return f"{list(StageName).index(stage):064x}"


def _pair_shards(rng: np.random.Generator, pairs: int, shard: int, picture_bytes: int) -> Iterator[pa.Table]:
    """Yield the shards of the table `pairs`."""
    for start in range(0, pairs, shard):
        count = min(shard, pairs - start)
        yield _pairs(rng, start, count, picture_bytes)


def _pairs(rng: np.random.Generator, start: int, count: int, picture_bytes: int) -> pa.Table:
    subs = [list(SubCategory)[(start + row) % len(SubCategory)] for row in range(count)]
    first, second = rng.integers(0, len(_COLOURS), (2, count))
    columns = {
        "item_id": [f"{start + row:016x}" for row in range(count)],
        "category": [category_of(sub).value for sub in subs],
        "sub_category": [sub.value for sub in subs],
        "prompt": [
            f"a {_COLOURS[a]} circle left of a {_COLOURS[b]} square" for a, b in zip(first, second, strict=True)
        ],
        "negative_prompt": [
            f"a {_COLOURS[b]} circle left of a {_COLOURS[a]} square" for a, b in zip(first, second, strict=True)
        ],
        "negative_kind": [list(PerturbationKind)[row % 3].value for row in range(count)],
        "rule": ["v2"] * count,
        "image_logprob_gap": rng.normal(size=count),
        "text_logprob_gap": rng.normal(size=count),
        "chosen_score": rng.uniform(0, 1, count),
        "rejected_score": rng.uniform(-1, 0.5, count),
        **{
            f"{side}_{name}": value
            for side in ("chosen", "rejected")
            for name, value in _side(rng, count, picture_bytes)
        },
    }
    schema = TABLES["pairs"]
    arrays = [pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(count, f.type) for f in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def _side(rng: np.random.Generator, count: int, picture_bytes: int) -> Iterator[tuple[str, list[object]]]:
    """Yield the columns of one of the two pictures."""
    answers = rng.uniform(0, 1, (count, _QUESTIONS))
    yield "variant", [0] * count
    yield "side", ["base"] * count
    yield "image", [{"bytes": _PNG + rng.bytes(picture_bytes), "path": "picture.png"} for _ in range(count)]
    yield (
        "answers",
        [[{"question": f"question {n} ?", "p_yes": p, "p_no": 1 - p} for n, p in enumerate(row)] for row in answers],
    )


def _prompts(pairs: pa.Table) -> pa.Table:
    schema = TABLES["prompts"]
    arrays = [
        pairs[field.name] if field.name in pairs.schema.names else pa.array([[]] * pairs.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


if __name__ == "__main__":
    main()
