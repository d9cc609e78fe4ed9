"""Which task runner maps the shards: threads in this process, or Ray across nodes (design, decision 9)."""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import Any

from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from ospo_core.errors import ConfigError

RAY_ADDRESS = "OSPO_RAY_ADDRESS"
"""Environment variable: address of a Ray cluster (`ray://host:10001`, or `auto`) on whose nodes shards are mapped."""


def task_runner() -> TaskRunner[Any]:
    """Return the runner for a round's tasks.

    In this process one thread works, since the engine and the loaded model have one owner.

    Raises:
        ConfigError: Ray is wanted and prefect-ray is not installed.
    """
    address = os.environ.get(RAY_ADDRESS, "")
    if not address:
        return ThreadPoolTaskRunner(max_workers=1)
    if importlib.util.find_spec("prefect_ray") is None:
        raise ConfigError(
            "mapping shards over Ray needs prefect-ray",
            field=RAY_ADDRESS,
            value=address,
            remedy="Install it with `pip install ospo[ray]`, or unset the variable",
        )
    runner: TaskRunner[Any] = importlib.import_module("prefect_ray").RayTaskRunner(address=address)
    return runner
