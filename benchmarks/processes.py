"""Images and scores by one worker process against several, with the same number of threads each.

    ospo stage questions --set storage.shard_size=64 --set storage.root=/tmp/r
    python -m benchmarks.processes --root /tmp/r --processes 2 --set storage.shard_size=64

Runs the command line, as a user does, in copies of a storage that holds the finished text stages: first with one
process of `--threads` threads, then with several, `--repeats` times in turn. What is compared is the time of the whole
command, with start and loading. The results must have the same digests.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ospo_core.artifacts.manifest import Manifest, load_manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.schema import StageName

logger = logging.getLogger("benchmarks.processes")

TEXT = (StageName.PROMPTS, StageName.PERTURBATIONS, StageName.QUESTIONS)
TIMED = (StageName.IMAGES, StageName.SCORES)


def main(arguments: list[str] | None = None) -> None:
    """Compare, and log the seconds and their ratio.

    Raises:
        SystemExit: a run failed, or two runs had different results.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--root", type=Path, required=True, help="storage whose text stages are finished")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], dest="options", help="option of the profile, as for ospo")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    counts = (1, given.processes)
    seconds: dict[int, list[float]] = {count: [] for count in counts}
    digests: set[tuple[str, ...]] = set()
    for _ in range(given.repeats):
        for count in counts:
            took, digest = render(given.root, count, given.threads, given.options)
            seconds[count].append(took)
            digests.add(digest)
            logger.info("%d process(es) of %d thread(s): %.1f s", count, given.threads, took)
    if len(digests) > 1:
        raise SystemExit("the results differ")
    one, several = (statistics.median(seconds[count]) for count in counts)
    logger.info("%d processes are %.2f times as fast as one; the results are equal", given.processes, one / several)


def render(root: Path, processes: int, threads: int, options: list[str]) -> tuple[float, tuple[str, ...]]:
    """Run images and scores in a copy of the storage; return the seconds, and the digests of the results."""
    with tempfile.TemporaryDirectory(dir=root.parent) as scratch:
        copy = Path(scratch) / "runs"
        for name in (*TEXT, "models", "rounds"):
            if (root / name).exists():
                shutil.copytree(root / name, copy / name)
        chosen = [*options, f"storage.root={copy}", f"execution.processes={processes}"]
        command = [sys.executable, "-m", "ospo", "stage", TIMED[-1].value]
        for option in chosen:
            command += ["--set", option]
        began = time.perf_counter()
        done = subprocess.run(
            command, env={**os.environ, "OMP_NUM_THREADS": str(threads)}, capture_output=True, text=True, check=False
        )
        took = time.perf_counter() - began
        if done.returncode:
            raise SystemExit(done.stderr)
        made = [_only_manifest(Storage(str(copy)), stage) for stage in TIMED]
    return took, tuple(one.digest for one in made)


def _only_manifest(storage: Storage, stage: StageName) -> Manifest:
    """Return the manifest of the only result of a stage."""
    folders = {key.split("/")[1] for key in storage.list(stage.value)}
    found = [load_manifest(storage, stage, name, verify=False) for name in sorted(folders)]
    (manifest,) = [one for one in found if one is not None]
    return manifest


if __name__ == "__main__":
    main()
