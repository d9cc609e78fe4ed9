"""Options of all tasks: the storage is the only cache, and only errors that may be temporary are retried."""

from __future__ import annotations

from typing import Any, TypeVar, cast

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import exponential_backoff
from prefect.utilities.annotations import quote

from ospo_core.errors import ConfigError, DamagedArtifactError, ModelError, StageError
from ospo_core.training.collapse import CollapseError

_Argument = TypeVar("_Argument")

PERMANENT = (ConfigError, StageError, ModelError, DamagedArtifactError, CollapseError)
"""Errors that a retry would meet again."""


def worth_retrying(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Return whether the task that ended in `state` may succeed if it is run again."""
    try:
        state.result()
    except PERMANENT:
        return False
    except Exception:  # anything else may have been the network, the disk or the machine
        return True
    return False


UNCACHED: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}
"""The storage is the only cache: tasks look up their manifests themselves (docs/architecture.md, decision 3)."""

RETRIED: dict[str, Any] = {
    "retries": 3,
    "retry_delay_seconds": exponential_backoff(backoff_factor=2),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": worth_retrying,
}
"""Three retries, after about 2, 4 and 8 seconds. The storage has already retried what the network dropped."""


def opaque(argument: _Argument) -> _Argument:
    """Pass an argument to a task without Prefect searching it for states and futures.

    In a manifest of thousands of shards that search takes a second per task run.
    """
    return cast(_Argument, quote(argument))
