"""Operations from scratch: `python -m tests.manual.operations` (in the project's folder, with the test dependencies).

A server, workers and `ospo deploy`; then a scheduled round, a cancellation, a retry, a backfill, and a worker that is
killed together with its run. Every step is printed with its time; the exit code is 1 if a step fails. The server uses
its own PostgreSQL database if PostgreSQL is installed on this machine.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer
from prefect.client.schemas.objects import FlowRun, StateType

from ospo_core.config import RoundConfig
from tests.support.operations import (
    BACKFILL,
    CRASHING,
    LONG,
    SCHEDULED,
    SPARE_POOL,
    Rounds,
    attempts_at,
    checkpoint_steps,
    end_schedule,
    resumed_from,
    steps_made,
    task_states,
    training_processes,
    write_deployments,
)
from tests.support.postgres import PostgresServer, missing_server, postgres_server
from tests.support.prefect_stack import CPU_POOL, GPU_POOL, Stack, prefect_stack
from tests.support.scripted_text import scripted_server

PATIENCE = 400.0
"""Seconds after which a step counts as failed."""

CACHED_ON_RETRY = 6
"""Number of stages before the training, which a retry must find cached."""


class Steps:
    """The printed list of steps."""

    def __init__(self) -> None:
        self.begun = time.monotonic()

    @contextmanager
    def step(self, what: str) -> Iterator[list[str]]:
        """Time a step and print it, together with the items of the yielded list."""
        began = time.monotonic()
        seen: list[str] = []
        try:
            yield seen
        except AssertionError as error:
            self._line("FAILED", began, f"{what}: {error}")
            raise
        self._line("ok", began, ": ".join([what, *filter(None, [", ".join(seen)])]))

    def _line(self, outcome: str, began: float, text: str) -> None:
        now = time.monotonic()
        typer.echo(f"{now - self.begun:6.1f} s  {outcome:<6} {now - began:6.1f} s  {text}")


def expect(held: bool, problem: str) -> None:
    """Raise AssertionError with `problem` unless `held`; unlike `assert`, also under `python -O`."""
    if not held:
        raise AssertionError(problem)


def ended_as(stack: Stack, run: UUID, wanted: StateType) -> FlowRun:
    """Wait for a run to end and return it.

    Raises:
        AssertionError: it ended in another state, or not in time.
    """
    ended = stack.wait_for_end(run, PATIENCE)
    expect(ended.state is not None and ended.state.type is wanted, f"{ended.name} ended {ended.state!r}")
    return ended


def run_scheduled(steps: Steps, stack: Stack) -> None:
    """Wait for the round that the schedule starts."""
    with steps.step("the scheduled round is completed") as seen:

        def completed() -> list[FlowRun]:
            return [one for one in stack.runs_of(SCHEDULED) if one.state and one.state.is_completed()]

        found = stack.wait_for("a scheduled round", completed, PATIENCE)
        seen += [found[0].name]


def retry(steps: Steps, stack: Stack, config: RoundConfig, run: UUID) -> None:
    """Retry a round whose training was interrupted."""
    written = max(checkpoint_steps(config))
    with steps.step("its retry is completed, and has done only what was missing") as seen:
        stack.retry(run)
        takeovers = stack.wait_for("a takeover", lambda: resumed_from(config)[1:], PATIENCE)
        expect(takeovers == [written], f"training went on from {takeovers}, its checkpoint was of step {written}")
        ended_as(stack, run, StateType.COMPLETED)
        cached = task_states(stack.client, run, 2)["Cached"]
        expect(cached == CACHED_ON_RETRY, f"{cached} stages were found cached, not {CACHED_ON_RETRY}")
        seen += [f"{cached} stages cached", f"training from step {written} on"]


def cancel_and_retry(steps: Steps, stack: Stack, rounds: Rounds, run: UUID) -> None:
    """Cancel a round in its training, and retry it."""
    with steps.step("a cancelled round's training process is gone, with a checkpoint") as seen:
        stack.wait_for("the training", lambda: steps_made(rounds.long) > 2, PATIENCE)
        stack.cancel(run)
        stack.wait_for("the end of the training", lambda: not training_processes(stack, "cpu"), 10)
        written = checkpoint_steps(rounds.long)
        expect(bool(written), "no checkpoint")
        seen += [f"checkpoint of step {written[-1]}"]
    with steps.step("the round is cancelled"):
        ended_as(stack, run, StateType.CANCELLED)
    retry(steps, stack, rounds.long, run)


def crash_and_retry(steps: Steps, stack: Stack, rounds: Rounds, run: UUID, killed: float) -> None:
    """Wait until the automation has found the dead run, and retry it."""
    with steps.step("the automation has marked the dead run Crashed") as seen:
        ended_as(stack, run, StateType.CRASHED)
        seconds = time.monotonic() - killed
        seen += [f"{seconds:.0f} s after it was killed"]
        expect(seconds < 120, f"only {seconds:.0f} s after it was killed")
    stack.start_worker("spare", SPARE_POOL)
    retry(steps, stack, rounds.crashing, run)


def back_fill(steps: Steps, stack: Stack, rounds: Rounds) -> None:
    """Recompute a stage as a run of the backfill deployment."""
    with steps.step("a backfill of stage pairs is completed, beside the old result"):
        before = attempts_at(rounds.long, "pairs")
        ended_as(stack, stack.start_run(BACKFILL, stage="pairs", refresh=True).id, StateType.COMPLETED)
        expect(attempts_at(rounds.long, "pairs") == before + 1, "there is no second attempt in the storage")


@contextmanager
def _database() -> Iterator[PostgresServer]:
    """Run PostgreSQL in a folder with a short name that its user may enter."""
    with tempfile.TemporaryDirectory() as folder, postgres_server(Path(folder)) as server:
        yield server


def play(steps: Steps, folder: Path) -> None:
    """Run all steps in `folder`; raise AssertionError at the first that fails."""
    with ExitStack() as block:
        with steps.step("the server answers") as seen:
            engine = block.enter_context(scripted_server())
            url = None if missing_server() else block.enter_context(_database()).url
            stack = block.enter_context(prefect_stack(folder, url))
            seen += ["on PostgreSQL" if url else "on SQLite, which may stall for a minute now and then"]
        rounds = write_deployments(folder, engine)
        with steps.step("ospo deploy has created pools, automation and deployments") as seen:
            done = stack.ospo("deploy", "--file", str(rounds.file))
            expect(done.returncode == 0, done.stdout + done.stderr)
            deployed = {one.id for one in stack.client.read_deployments()}
            seen += [f"{len(deployed)} deployments"]
        with steps.step("a second ospo deploy has added nothing"):
            again = stack.ospo("deploy", "--file", str(rounds.file))
            expect(again.returncode == 0, again.stdout + again.stderr)
            expect({one.id for one in stack.client.read_deployments()} == deployed, again.stdout)
        for name, pool in (("cpu", CPU_POOL), ("gpu", GPU_POOL), ("spare", SPARE_POOL)):
            stack.start_worker(name, pool)
        crashing = stack.start_run(CRASHING).id
        with steps.step("a round trains, and its worker is killed together with it"):
            stack.wait_for("a checkpoint", lambda: checkpoint_steps(rounds.crashing), PATIENCE)
            stack.kill_worker("spare")
        killed = time.monotonic()
        with steps.step("the schedule has started a round by itself"):
            end_schedule(stack, PATIENCE)
        cancel_and_retry(steps, stack, rounds, stack.start_run(LONG).id)
        run_scheduled(steps, stack)
        back_fill(steps, stack, rounds)
        crash_and_retry(steps, stack, rounds, crashing, killed)


def main(
    folder: Annotated[Path | None, typer.Option(help="An empty folder for all files (default: a new one).")] = None,
) -> None:
    """Run all steps of operations from scratch."""
    steps = Steps()
    with tempfile.TemporaryDirectory(prefix="ospo", ignore_cleanup_errors=True) as temporary:
        try:
            play(steps, folder or Path(temporary))
        except AssertionError:
            sys.exit(1)
    typer.echo("all steps passed")


if __name__ == "__main__":
    typer.run(main)
