"""Checkpoints of pretraining: weights, optimiser and step in one file that appears whole or not at all."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from ospo_core.artifacts.atomic_write import atomic_file

logger = logging.getLogger(__name__)


class HasState(Protocol):
    """What an optimiser has, and several in one."""

    def state_dict(self) -> Any:
        """Return the state."""

    def load_state_dict(self, state_dict: Any) -> None:
        """Go on from a state."""


def save_checkpoint(path: Path, model: nn.Module, optimiser: HasState, step: int) -> None:
    """Write a checkpoint after `step` steps."""
    with atomic_file(path) as temporary:
        torch.save({"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step}, temporary)


def load_checkpoint(path: Path, model: nn.Module, optimiser: HasState) -> int:
    """Take over a checkpoint if there is one; return the step to go on with, 0 where there is none."""
    if not path.exists():
        return 0
    state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    logger.info("resumed at step %d", state["step"])
    return int(state["step"])
