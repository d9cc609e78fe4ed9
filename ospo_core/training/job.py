"""A training job, its result and its files: plain data, shared by the parent and the training process."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import Field

from ospo_core.artifacts.ids import digest_of
from ospo_core.config.sections import ModelConfig, Section, TrainingConfig

EXIT_STOPPED = 75
"""Exit code of a process that was asked to stop and saved a checkpoint (`EX_TEMPFAIL`: try again)."""

EXIT_FULL = 74
"""Exit code of a process whose disk is full, so that it cannot write the reason to a file (`EX_IOERR`)."""


class TrainingJob(Section):
    """One training run: everything that determines its outcome, and where to put it."""

    model_folder: Path = Field(description="The model to start from, in transformers' format.")
    model: ModelConfig = ModelConfig()
    pairs_path: Path = Field(description="Local Parquet file, or a folder of them, of the pairs table.")
    training: TrainingConfig = TrainingConfig()
    seed: int = Field(0, description="Seed of order, caption dropout, LoRA initialisation and LoRA dropout.")
    out_dir: Path = Field(description="Local folder that no other run uses; a second start resumes from it.")

    def identity(self, model_digest: str) -> str:
        """Return one digest of everything that determines the outcome; only a job with the same digest resumes.

        It covers content: the pairs' bytes, the model's digest, the training options and the seed. It does not cover
        folders, devices, and how often checkpoints are written.

        Args:
            model_digest: digest of the model in `model_folder`.
        """
        options = self.training.model_dump(mode="json", exclude={"checkpoint_every"})
        return digest_of([model_digest, self.model.family, _files_digest(self.pairs_path), options, self.seed])


class TrainingResult(Section):
    """Outcome of a finished run, as `result.json` holds it.

    Attributes:
        identity: of the job it belongs to.
        steps: optimiser steps made in all.
        resumed_from: step at which the last process resumed; 0 for a run that was never interrupted.
        pairs: number of training pairs.
        seconds: wall time of the last process, including loading and merging.
        adapter: folder of the PEFT adapter.
        merged: folder of the merged model, in transformers' format.
        metrics: figures of the last step.
    """

    identity: str
    steps: int
    resumed_from: int
    pairs: int
    seconds: float
    adapter: Path
    merged: Path
    metrics: dict[str, float]


def _files_digest(path: Path) -> str:
    """Return the sha256 of a file, or of the Parquet files of a folder in the order of their names."""
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(path.glob("*.parquet")):
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


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
