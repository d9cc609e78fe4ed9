"""One process, or several that train together: what the loop needs to know of the others.

Several processes are started by `accelerate launch` and joined by `accelerate.Accelerator` (data parallel: every
process holds the model, gradients are averaged). Alone, accelerate is not needed and not imported.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Protocol

import torch
from torch import nn

from ospo_core.errors import ConfigError

if TYPE_CHECKING:
    from accelerate import Accelerator


class Team(Protocol):
    """The processes that train together."""

    rank: int
    size: int

    def prepare(self, policy: nn.Module) -> nn.Module:
        """Return the module whose backward pass averages gradients over the team."""

    def no_sync(self, policy: nn.Module) -> AbstractContextManager[None]:
        """Return a context in which gradients are only accumulated."""

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Return the mean of a tensor over the team."""

    def any(self, flag: bool) -> bool:
        """Tell whether the flag is set anywhere in the team."""

    def wait(self) -> None:
        """Wait for all."""


class Alone:
    """A team of one."""

    rank = 0
    size = 1

    def prepare(self, policy: nn.Module) -> nn.Module:
        """Return the module itself."""
        return policy

    def no_sync(self, policy: nn.Module) -> AbstractContextManager[None]:
        """Return a context that does nothing."""
        return nullcontext()

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Return the tensor itself."""
        return values

    def any(self, flag: bool) -> bool:
        """Return the flag itself."""
        return flag

    def wait(self) -> None:
        """Return at once."""


class Together:
    """A team of several processes; gradients and decisions are shared through accelerate.

    Args:
        accelerator: made by this process; it has already joined the others and chosen the device.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self.rank = int(accelerator.process_index)
        self.size = int(accelerator.num_processes)

    def prepare(self, policy: nn.Module) -> nn.Module:
        """Return the module wrapped for data-parallel training."""
        wrapped: nn.Module = self._accelerator.prepare(policy)
        return wrapped

    def no_sync(self, policy: nn.Module) -> AbstractContextManager[None]:
        """Return the wrapper's own context without synchronisation."""
        context: AbstractContextManager[None] = self._accelerator.no_sync(policy)
        return context

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Average over the team."""
        reduced: torch.Tensor = self._accelerator.reduce(values.to(self._accelerator.device), reduction="mean")
        return reduced

    def any(self, flag: bool) -> bool:
        """Add up the flags of the team."""
        return bool(self.mean(torch.tensor(float(flag))) > 0)

    def wait(self) -> None:
        """Meet the others at a barrier."""
        self._accelerator.wait_for_everyone()


def join_team(device: str = "auto") -> Team:
    """Return the team this process was started in, by the environment that its launcher set.

    Args:
        device: `cpu` keeps the processes off the GPUs.

    Raises:
        ConfigError: several processes, but accelerate is not installed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Alone()
    try:
        from accelerate import Accelerator
    except ImportError as error:
        raise ConfigError(
            "training on several devices needs accelerate", remedy="Install it: pip install 'ospo[train]'"
        ) from error
    return Together(Accelerator(cpu=device == "cpu"))
