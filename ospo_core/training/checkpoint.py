"""Checkpoints of a training run: adapter, optimiser and state, complete or absent.

A checkpoint is a folder `step-000050` that appears by one rename. Noise and order are drawn from (seed, step), so the
step is the whole state of the random generators. The last two are kept; a damaged one is skipped.

Own code because `accelerate.save_state` saves the whole model, writes file by file, and stores no checksums.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ospo_core.artifacts.atomic_write import atomic_folder, is_temporary
from ospo_core.artifacts.ids import file_sha256
from ospo_core.errors import TrainingError
from ospo_core.training.collapse import CollapseAlarm

logger = logging.getLogger(__name__)

KEPT = 2
_ADAPTER, _OPTIMIZER, _STATE = "adapter.safetensors", "optimizer.pt", "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """A training run after `step` optimiser steps; `adapter` holds the trained parameters by name."""

    step: int
    adapter: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    alarm: CollapseAlarm


class CheckpointStore:
    """The checkpoints of the job with this identity; a checkpoint of another job is refused."""

    def __init__(self, folder: Path, identity: str) -> None:
        self._folder, self._identity = folder, identity

    def save(
        self, step: int, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer, alarm: CollapseAlarm
    ) -> Path:
        """Write a checkpoint, then delete all but the last two; return its folder.

        Raises:
            TrainingError: the folder cannot be written, for example because the disk is full.
        """
        final = self._folder / f"step-{step:06d}"
        adapter = {name: value.detach().cpu().contiguous() for name, value in parameters.items()}
        try:
            with atomic_folder(final) as fresh:
                save_file(adapter, fresh / _ADAPTER)
                torch.save(optimizer.state_dict(), fresh / _OPTIMIZER)
                state = {
                    "identity": self._identity,
                    "step": step,
                    "alarm": alarm.model_dump(),
                    "sha256": {name: file_sha256(fresh / name) for name in (_ADAPTER, _OPTIMIZER)},
                }
                (fresh / _STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")
        except OSError as error:
            raise TrainingError(
                f"the checkpoint cannot be written: {error.strerror}",
                field=str(final),
                remedy="Free space or choose another storage.scratch; training resumes from the last checkpoint",
            ) from error
        unfinished = filter(is_temporary, self._folder.iterdir())  # left by a killed process
        for folder in [*self._complete()[:-KEPT], *unfinished]:
            shutil.rmtree(folder, ignore_errors=True)
        return final

    def load_latest(self) -> Checkpoint | None:
        """Return the newest undamaged checkpoint, or None.

        Raises:
            TrainingError: it belongs to another job.
        """
        for folder in reversed(self._complete()):
            checkpoint = self._load(folder)
            if checkpoint is not None:
                return checkpoint
        return None

    def _load(self, folder: Path) -> Checkpoint | None:
        """Return one checkpoint; None, with a warning in the log, if it is damaged."""
        try:
            state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
            for name, digest in state["sha256"].items():
                if file_sha256(folder / name) != digest:
                    raise ValueError(f"{name} is not what was saved")
        except (OSError, ValueError, KeyError) as error:
            logger.warning("checkpoint %s is damaged and is skipped: %s", folder, error)
            return None
        if state["identity"] != self._identity:
            raise TrainingError(
                "the checkpoints belong to another training job",
                field=str(self._folder),
                remedy="Delete that folder, or give this job a folder of its own",
            )
        return Checkpoint(
            step=state["step"],
            adapter=load_file(folder / _ADAPTER),
            optimizer=torch.load(folder / _OPTIMIZER, map_location="cpu", weights_only=True),
            alarm=CollapseAlarm(**state["alarm"]),
        )

    def _complete(self) -> list[Path]:
        """Return the folders of all checkpoints, oldest first."""
        return sorted(self._folder.glob("step-*"))
