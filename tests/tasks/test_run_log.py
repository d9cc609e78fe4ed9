"""The log of a run tells what stages say and what went wrong, not that every small task has completed."""

from __future__ import annotations

from uuid import UUID

import pytest
from prefect import flow, task
from prefect.runtime import flow_run

from tasks.run_log import run_logger, tell_the_story
from tests.support.prefect_reading import log_of


def test_only_the_story_is_told(prefect_server: str) -> None:
    @task
    def speak() -> None:
        run_logger().info("images: 3 pictures")

    @task
    def fail() -> None:
        raise ValueError("a mistake")

    @flow
    def told() -> UUID:
        tell_the_story()
        speak()
        fail(return_state=True)
        run_logger().info("the end")
        return UUID(str(flow_run.id))

    run = told(return_state=True).result()
    lines = log_of(run, until="the end")
    assert "images: 3 pictures" in lines and any("ValueError: a mistake" in line for line in lines)
    assert any(line.startswith("Finished in state Failed(") for line in lines)
    assert lines.count("Finished in state Completed()") <= 1, "only the flow's own"


def test_outside_of_a_run_there_is_an_ordinary_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "ospo"):
        run_logger().info("as usual")
    assert caplog.messages == ["as usual"]
