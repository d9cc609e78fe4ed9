"""What `ospo benchmark` does: run the flow, show the scores, write the folder for the benchmark's own tools."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ospo import output
from ospo.actions import embedded_prefect, storage_of
from ospo_core.artifacts.atomic_write import atomic_folder
from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.storage_errors import as_storage_error
from ospo_core.artifacts.tables import iter_rows
from ospo_core.config import RoundConfig, load_profile
from ospo_core.errors import ConfigError
from ospo_core.evaluation.benchmarks.layouts import write_layout
from ospo_core.evaluation.benchmarks.prompts import BenchmarkPrompt, load_benchmark
from ospo_core.evaluation.benchmarks.protocol import protocol_of

if TYPE_CHECKING:
    from flows.benchmark import Measured


def run(
    profile: str,
    overrides: Sequence[str],
    against: str | None,
    out: Path | None,
    refresh: bool,
    verbose: bool,
) -> None:
    """Run a benchmark with one model, or two; show the scores, and write pictures and rows to `out`.

    Raises:
        ConfigError: the prompts cannot be read, or `out` is not empty.
    """
    config = load_profile(profile, overrides)
    prompts = load_benchmark(config.benchmark, config.evaluation)  # before a server is started
    if against == config.model.path:
        raise ConfigError("is the model itself", field="--against", value=against, remedy="Name another model")
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError("is not empty", field="--out", value=str(out), remedy="Name a folder that does not exist yet")
    with embedded_prefect(config, verbose):
        from flows.benchmark import benchmark

        result = benchmark(config, against=against, refresh=refresh)
    output.show_benchmark(result.page)
    output.show_text(f"Report: {result.report}")
    if out is not None:
        skipped = write_folder(storage_of(config), config, prompts, result.measured, out)
        output.show_text(f"Pictures and scores: {out}")
        if skipped:
            output.show_text(
                f"Without a file name that the benchmark's tools could read, so left out: {', '.join(skipped)}"
            )


def write_folder(
    storage: Storage, config: RoundConfig, prompts: Sequence[BenchmarkPrompt], measured: Sequence[Measured], out: Path
) -> list[str]:
    """Write the layout of the benchmark's tools and `scores.jsonl` to `out`, which appears complete or not at all.

    With two models each has a folder of its own, named by its digest; if both are the same model, the second one's name
    ends in `-again`. Returns the prompts that had to be left out.

    Raises:
        StorageError: `out` cannot be written.
    """
    name, skipped = protocol_of(config.benchmark, config.evaluation).name, dict[str, None]()
    with as_storage_error("write", str(out)), atomic_folder(out) as fresh:
        for one in measured:
            folder = fresh / one.model[:12] if len(measured) > 1 else fresh
            if folder != fresh and folder.exists():
                folder = folder.with_name(f"{folder.name}-again")
            pictures = folder / "pictures"
            pictures.mkdir(parents=True)
            drawn = iter_rows(storage, one.pictures, ["item_id", "sample", "image"])
            skipped |= dict.fromkeys(write_layout(pictures, name, prompts, drawn))
            with (folder / "scores.jsonl").open("w", encoding="utf-8") as stream:
                stream.writelines(f"{json.dumps(row, ensure_ascii=False)}\n" for row in _scores(storage, one.scores))
    return list(skipped)


def _scores(storage: Storage, manifest: Manifest) -> Iterator[dict[str, Any]]:
    """Yield the rows of the scores, with their parts as one mapping."""
    for row in iter_rows(storage, manifest):
        yield {**row, "parts": {part["name"]: part["value"] for part in row["parts"] or []}}
