"""One stage as a step of a flow: the loop of the core, with Prefect tasks passed in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from prefect import unmapped
from prefect.context import FlowRunContext
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from ospo_core.artifacts.manifest import Manifest, ShardEntry
from ospo_core.errors import StageError
from ospo_core.rounds import Round
from ospo_core.schema import StageName
from ospo_core.stages import Phase, ShardSpec, StageRun, run_stage
from ospo_core.stages.attempts import Attempt
from ospo_core.stages.workers import WorkerPool, process_pool
from tasks.benchmark_tasks import record_benchmark
from tasks.progress import progress_bar
from tasks.remote_training import train_elsewhere
from tasks.stage_tasks import compute_shard, look_up, publish
from tasks.task_options import opaque

LOCAL: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=1)
"""Task runner of every flow: a single thread works, since the engine and the loaded model have one owner.

Where worker processes own them, as many threads wait for these (`_mapped`).
"""


def run_step(
    round: Round, name: StageName, upstream: Mapping[StageName, Manifest], request: Attempt | None = None
) -> tuple[Manifest, bool]:
    """Run a stage of a round, unless its result is cached; before an evaluation, the benchmark that is its gate.

    Args:
        round: the round.
        name: which stage.
        upstream: manifests of earlier stages.
        request: recompute the stage, or some of its items, although there is a result.

    Returns:
        The stage's manifest, and whether it was computed now rather than found.
    """
    if round.is_gated and name is StageName.EVALUATION:
        again = request if request == Attempt() else None
        if again is not None or round.measured(upstream) is None:
            _measure(round, upstream, again)
    run = round.bind(name, upstream, request)
    if run.stage.phase is Phase.TRAINING:
        if round.config.execution.training_deployment is not None:
            manifest = look_up(run)
            if manifest is not None:
                return manifest, False
            return train_elsewhere(opaque(round), opaque(run), request), True
        return run_stage(run, look_up, _in_this_thread, publish)
    with progress_bar(name, "shard"):
        return run_stage(run, look_up, _mapped, publish)


def _measure(round: Round, upstream: Mapping[StageName, Manifest], again: Attempt | None) -> None:
    """Draw and score the benchmark that is the gate with parent and child; what is cached is not computed again.

    `again` scores the pictures once more.
    """
    for one in round.benchmarks(upstream).values():
        record_benchmark(opaque(one))
        try:
            pictures, _ = run_step(one, StageName.IMAGES, {})
            run_step(one, StageName.EVALUATION, {StageName.IMAGES: pictures}, again)
        finally:
            one.resources.release()


def _in_this_thread(run: StageRun, specs: Sequence[ShardSpec]) -> Iterator[ShardEntry]:
    """Compute shards in the flow's own thread, the only one that is told of a cancellation.

    The training process must then write its checkpoint and end.
    """
    for spec in specs:
        yield cast(ShardEntry, compute_shard(opaque(run), spec, return_state=True).result())


def _mapped(run: StageRun, specs: Sequence[ShardSpec]) -> Iterator[ShardEntry]:
    """Compute shards in this process, or in the workers that `execution` names: processes here, or actors of Ray.

    Each shard is a task run; where there are workers, its thread waits for one. If a shard fails, those that are being
    computed are finished, and their results kept; if the flow is ended, they are ended too.

    Raises:
        ConfigError: Ray is wanted and cannot be used, see `flows.ray_cluster.actor_pool`.
    """
    context = FlowRunContext.get()
    if context is None:
        raise StageError(
            "shards are mapped outside a flow", field=f"stage {run.stage.name}", remedy="Call it in a flow"
        )
    workers, moved = _workers(run)
    parameters = {"run": unmapped(opaque(moved)), "spec": specs, "workers": unmapped(opaque(workers))}
    if workers is None:
        alone: Any = context.task_runner
        for future in alone.map(compute_shard, parameters):
            yield cast(ShardEntry, future.result())
        return
    threads: Any = ThreadPoolTaskRunner(max_workers=workers.size)
    with threads as runner:
        try:
            for future in runner.map(compute_shard, parameters):
                yield cast(ShardEntry, future.result())
        except Exception:  # the shards in flight are finished and kept
            raise
        except BaseException:  # a signal or a cancellation does not wait for them
            workers.kill()
            raise


def _workers(run: StageRun) -> tuple[WorkerPool | None, StageRun]:
    """Return the workers for a stage, if any, and the stage run that they receive.

    The configuration decides, so that a deployed flow follows its parameters.
    """
    if run.config.execution.runner == "ray":
        from flows.ray_cluster import actor_pool

        return actor_pool(run)
    return process_pool(run), run
