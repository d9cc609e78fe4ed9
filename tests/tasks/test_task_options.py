"""A hiccup is tried again, a mistake is not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prefect import flow, task

from ospo_core.errors import ConfigError, DamagedArtifactError, ModelError, StageError, StorageError, TrainingError
from ospo_core.training.collapse import CollapseError
from tasks.task_options import RETRIED, UNCACHED

MISTAKES = [ConfigError, ModelError, StageError, DamagedArtifactError, CollapseError]
HICCUPS = [StorageError, TrainingError, OSError, RuntimeError]


@pytest.fixture(scope="module")
def tries(prefect_server: str) -> Iterator[dict[str, int]]:
    """How often a task was started that always fails with each kind of error."""
    counted: dict[str, int] = {}

    @task(**UNCACHED, **{**RETRIED, "retry_delay_seconds": 0, "retries": 2})
    def fail(kind: type[Exception]) -> None:
        counted[kind.__name__] = counted.get(kind.__name__, 0) + 1
        raise kind("no")

    @flow
    def fail_all() -> None:
        for kind in MISTAKES + HICCUPS:
            fail(kind, return_state=True)

    fail_all(return_state=True)
    yield counted


@pytest.mark.parametrize("kind", MISTAKES)
def test_mistake_is_met_once(tries: dict[str, int], kind: type[Exception]) -> None:
    assert tries[kind.__name__] == 1


@pytest.mark.parametrize("kind", HICCUPS)
def test_hiccup_is_tried_again(tries: dict[str, int], kind: type[Exception]) -> None:
    assert tries[kind.__name__] == 3


def test_waits_grow_exponentially() -> None:
    delays = RETRIED["retry_delay_seconds"](RETRIED["retries"])
    assert delays == [2, 4, 8]
