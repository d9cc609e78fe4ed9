"""Which task runner maps the shards: a thread of this process, or the nodes of a Ray cluster (design, decision 9)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect.context import FlowRunContext
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from ospo_core.errors import StageError
from tasks.jobs import StageJob, untouched

LOCAL: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=1)
"""Runner of every flow: one thread works, since the engine and the loaded model have one owner."""


@contextmanager
def shard_runner(job: StageJob) -> Iterator[tuple[Any, StageJob]]:
    """Yield the runner that maps a stage's shards, and the job as its tasks shall get it.

    The configuration of the run decides, so that a deployed flow follows its parameters. Training is not mapped (see
    `flows.steps`); `execution.training_deployment` places it.

    Raises:
        ConfigError: Ray is wanted, and prefect-ray is missing, the cluster does not answer or lacks what a shard needs,
            or a node cannot see the storage.
    """
    if job.config.execution.runner == "ray":
        from flows.ray_cluster import ray_runner

        with ray_runner(job) as runner:
            yield runner
        return
    context = FlowRunContext.get()
    if context is None:
        raise StageError("shards are mapped outside a flow", field=f"stage {job.stage}", remedy="Call it in a flow")
    yield context.task_runner, untouched(job)
