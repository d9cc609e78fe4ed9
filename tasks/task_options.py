"""Options of all tasks: no cache but the storage, and retries for what may have been a hiccup, not for mistakes."""

from __future__ import annotations

from typing import Any, TypedDict, TypeVar, cast

from prefect import Task
from prefect.cache_policies import NO_CACHE, CachePolicy
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import exponential_backoff
from prefect.utilities.annotations import quote

from ospo_core.errors import ConfigError, DamagedArtifactError, ModelError, StageError
from ospo_core.training.collapse import CollapseError

_Argument = TypeVar("_Argument")

PERMANENT = (ConfigError, StageError, ModelError, DamagedArtifactError, CollapseError)
"""Errors that the same task would meet again."""


def worth_retrying(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Return whether the task that ended in `state` may succeed if it is run again."""
    try:
        state.result()
    except PERMANENT:
        return False
    except Exception:  # whatever else went wrong may have been the network, the disk or the machine
        return True
    return False


class TaskOptions(TypedDict):
    """Options of `prefect.task` that all tasks here share."""

    cache_policy: CachePolicy
    persist_result: bool


class RetryOptions(TypedDict):
    """Options of `prefect.task` for tasks that are retried."""

    retries: int
    retry_delay_seconds: Any
    retry_jitter_factor: float
    retry_condition_fn: Any


UNCACHED = TaskOptions(cache_policy=NO_CACHE, persist_result=False)
"""The storage is the only cache: tasks look up their manifests themselves (docs/architecture.md, decision 3)."""

RETRIED = RetryOptions(
    retries=3,
    retry_delay_seconds=exponential_backoff(backoff_factor=2),
    retry_jitter_factor=0.5,
    retry_condition_fn=worth_retrying,
)
"""Three retries, after about 2, 4 and 8 seconds. The storage has already retried what the network dropped."""


def opaque(argument: _Argument) -> _Argument:
    """Pass an argument to a task without Prefect searching it for states and futures.

    In a manifest of thousands of shards that search takes a second per task run.
    """
    return cast(_Argument, quote(argument))
