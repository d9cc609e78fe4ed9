"""A training job, its result and its files: plain data, shared by the parent and the training process.

The metrics are JSON lines: one line per step, which the parent reads while the file grows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import Field

from ospo_core.artifacts.atomic_write import atomic_file
from ospo_core.artifacts.ids import digest_of, file_sha256
from ospo_core.config.sections import ModelConfig, Section, TrainingConfig

Metrics = dict[str, float]

EXIT_STOPPED = 75
"""Exit code of a process that was asked to stop and saved a checkpoint (`EX_TEMPFAIL`: try again)."""

EXIT_FULL = 74
"""Exit code of a process whose disk is full, so that it cannot write the reason to a file (`EX_IOERR`)."""


def outcome_options(config: TrainingConfig) -> dict[str, Any]:
    """Return the options that determine the outcome of a training; the others change its time and memory only.

    Without imported pairs the options about them are left out, as they were before there were any. `learning_rate` is
    the one that is trained at, so `further_rate` adds nothing.
    """
    others = {"checkpoint_every", "gradient_checkpointing", "further_rate"}
    if config.imported_pairs is None:
        others |= {"imported_pairs", "own_pairs"}
    return config.model_dump(mode="json", exclude=others)


class TrainingJob(Section):
    """One training run: everything that determines its outcome, and where to put it."""

    model_folder: Path = Field(description="The model to start from, in transformers' format.")
    model_digest: str = Field(description="Digest of that folder, verified by who starts the run, so not read again.")
    model: ModelConfig = ModelConfig()
    pairs_path: Path = Field(description="Local Parquet file, or a folder of them, of the pairs table.")
    training: TrainingConfig = TrainingConfig()
    seed: int = Field(0, description="Seed of order, caption dropout, LoRA initialisation and LoRA dropout.")
    out_dir: Path = Field(description="Local folder that no other run uses; a second start resumes from it.")

    def identity(self) -> str:
        """Return one digest of everything that determines the outcome; only a job with the same digest resumes.

        It covers content: the pairs' bytes, the model's digest, the training options and the seed. It does not cover
        folders, devices, how often checkpoints are written, and whether activations are recomputed.
        """
        pairs = [self.pairs_path] if self.pairs_path.is_file() else sorted(self.pairs_path.glob("*.parquet"))
        pairs_digest = sha256(bytes.fromhex("".join(map(file_sha256, pairs)))).hexdigest()
        options = outcome_options(self.training)
        return digest_of([self.model_digest, self.model.family, pairs_digest, options, self.seed])


class TrainingResult(Section):
    """Outcome of a finished run, as `result.json` holds it."""

    identity: str = Field(description="Of the job it belongs to.")
    steps: int = Field(description="Optimiser steps made in all.")
    resumed_from: int = Field(description="Step at which the last process resumed; 0 if never interrupted.")
    pairs: int
    seconds: float = Field(description="Wall time of the last process, including loading and merging.")
    peak_memory: int = Field(0, description="Most bytes that the main process used on its device while it trained.")
    adapter: Path = Field(description="Folder of the PEFT adapter.")
    merged: Path = Field(description="Folder of the merged model, in transformers' format.")
    metrics: Metrics = Field(description="Figures of the last step.")


class JobFiles:
    """Paths of a run's files below its `out_dir`."""

    def __init__(self, out_dir: Path) -> None:
        self.job = out_dir / "job.json"
        self.metrics = out_dir / "metrics.jsonl"
        self.heartbeat = out_dir / "heartbeat"
        self.log = out_dir / "train.log"
        self.error = out_dir / "error.json"
        self.result = out_dir / "result.json"
        self.checkpoints = out_dir / "checkpoints"
        self.adapter = out_dir / "adapter"
        self.merged = out_dir / "merged"


def append_metrics(path: Path, metrics: Mapping[str, float]) -> None:
    """Append one step; values that are not finite are omitted, since JSON cannot hold them."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({name: value for name, value in metrics.items() if math.isfinite(value)}) + "\n")


def read_metrics(path: Path, after: int = 0) -> list[Metrics]:
    """Return the complete lines of the steps after `after`; none if the file does not exist yet."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    rows: list[Metrics] = [json.loads(line) for line in lines if line.endswith("\n")]  # the last may be incomplete
    return [row for row in rows if row["step"] > after]


def cut_metrics(path: Path, last: int) -> None:
    """Make a metrics file end with step `last` (0: make it empty), without a line cut off by a kill."""
    kept = [json.dumps(row) + "\n" for row in read_metrics(path) if row["step"] <= last]
    with atomic_file(path) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")
