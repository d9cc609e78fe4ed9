"""What a Prefect server knows of a flow run: artifacts, task runs, and a little later log lines and events."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import Artifact, TaskRun
from prefect.events import Event
from prefect.events.filters import EventFilter, EventNameFilter, EventRelatedFilter

Found = TypeVar("Found")


def artifacts_of(flow_run: UUID) -> dict[str, Artifact]:
    """Artifacts of a flow run by key."""
    wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run]))
    with get_client(sync_client=True) as client:
        return {str(one.key): one for one in client.read_artifacts(artifact_filter=wanted)}


def task_runs_of(flow_run: UUID) -> list[TaskRun]:
    """Task runs of a flow run."""
    with get_client(sync_client=True) as client:
        return client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run])))


def log_of(flow_run: UUID, until: str, seconds: float = 120.0) -> list[str]:
    """Log lines of a flow run, once one of them has `until` in it."""
    wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[flow_run]))

    def lines() -> list[str]:
        with get_client(sync_client=True) as client:
            return [log.message for log in client.read_logs(log_filter=wanted, limit=200)]

    return _once(lines, lambda found: any(until in line for line in found), seconds)


def asset_events_of(flow_run: UUID, count: int, seconds: float = 120.0) -> list[Event]:
    """Events about assets of a flow run, oldest first, once there are `count`."""
    related = EventRelatedFilter(id=[f"prefect.flow-run.{flow_run}"])
    wanted = EventFilter(event=EventNameFilter(prefix=["prefect.asset."]), related=related)

    def events() -> list[Event]:
        with get_client(sync_client=True) as client:
            return list(client.read_events(filter=wanted, limit=50).events)

    return sorted(_once(events, lambda found: len(list(found)) >= count, seconds), key=lambda event: event.occurred)


def _once(read: Callable[[], Found], fits: Callable[[Found], bool], seconds: float) -> Found:
    """Read again and again until what is read fits."""
    deadline = time.monotonic() + seconds
    while not fits(found := read()):
        assert time.monotonic() < deadline, f"waited in vain, found {found}"
        time.sleep(0.1)
    return found
