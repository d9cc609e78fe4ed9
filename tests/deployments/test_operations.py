"""Rounds as a team runs them: a server, workers, a schedule; cancelled, retried, killed, done over.

One stack for all tests, which go on in the order of this file: the schedule and the dead run take their time meanwhile.
The server's database is PostgreSQL: on SQLite the server stands still for a minute when this much is going on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

import asyncpg
import pytest
from prefect.client.schemas.objects import FlowRun, StateType

from tests.support.operations import (
    BACKFILL,
    CRASHING,
    LONG,
    LONG_STEPS,
    REMOTE,
    SCHEDULED,
    SPARE_POOL,
    TRAINING,
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
from tests.support.postgres import PACKAGE, PostgresServer, missing_server, postgres_server
from tests.support.prefect_stack import CPU_POOL, GPU_POOL, Stack, prefect_stack
from tests.support.scripted_text import scripted_server

PATIENCE = 400.0
"""How long a step may take on a busy machine, seconds; four times what it takes on one with two idle cores."""

STAGES_BEFORE_TRAINING = 6
pytestmark = pytest.mark.timeout(1200)


@dataclass
class Team:
    """The stack with a round that was killed with its worker, one in its training, and a second run of that one."""

    stack: Stack
    database: PostgresServer
    rounds: Rounds
    long: UUID
    second: UUID
    crashing: UUID

    def end_of(self, run: UUID) -> FlowRun:
        return self.stack.wait_for_end(run, PATIENCE)


@pytest.fixture(scope="module")
def database() -> Iterator[PostgresServer]:
    """Run PostgreSQL, in a folder of a short name that its user may enter."""
    if missing_server():
        pytest.skip(f"no PostgreSQL here: {', '.join(missing_server())} missing; apt-get install {PACKAGE}")
    with TemporaryDirectory() as folder, postgres_server(Path(folder)) as server:
        yield server


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory, database: PostgresServer) -> Iterator[Team]:
    folder = tmp_path_factory.mktemp("team")
    with scripted_server() as engine, prefect_stack(folder, database.url) as stack:
        rounds = write_deployments(folder, engine)
        done = stack.ospo("deploy", "--file", str(rounds.file))
        assert done.returncode == 0 and "SQLite" not in done.stdout, done.stdout + done.stderr
        for name, pool in (("cpu", CPU_POOL), ("gpu", GPU_POOL), ("spare", SPARE_POOL)):
            stack.start_worker(name, pool)
        crashing = stack.start_run(CRASHING).id
        stack.wait_for("a checkpoint", lambda: checkpoint_steps(rounds.crashing), PATIENCE)
        stack.kill_worker("spare")
        end_schedule(stack, PATIENCE)
        long = stack.start_run(LONG).id
        stack.wait_for("the long round", lambda: stack.state_of(long) is StateType.RUNNING, PATIENCE)
        second = stack.start_run(LONG).id
        stack.wait_for("the long training", lambda: steps_made(rounds.long) > 2, PATIENCE)
        yield Team(stack, database, rounds, long, second, crashing)


def test_second_run_is_refused_while_one_runs(team: Team) -> None:
    second = team.end_of(team.second)
    assert second.state is not None and second.state.is_cancelled()
    assert second.state.message == "Deployment concurrency limit reached."
    assert team.stack.state_of(team.long) is StateType.RUNNING


def test_cancelled_training_leaves_a_checkpoint_and_no_process(team: Team) -> None:
    assert training_processes(team.stack, "cpu")
    team.stack.cancel(team.long)
    team.stack.wait_for("the end of the training", lambda: not training_processes(team.stack, "cpu"), 10)
    assert checkpoint_steps(team.rounds.long), "written when it was stopped: no other was due"
    ended = team.end_of(team.long)
    assert ended.state is not None and ended.state.is_cancelled()


def test_retry_goes_on_from_the_checkpoint(team: Team) -> None:
    (step,) = checkpoint_steps(team.rounds.long)
    assert 0 < step < LONG_STEPS
    team.stack.retry(team.long)
    takeovers = team.stack.wait_for("a takeover", lambda: resumed_from(team.rounds.long)[1:], PATIENCE)
    assert takeovers == [step]
    ended = team.end_of(team.long)
    assert ended.state is not None and ended.state.is_completed(), ended.state
    assert task_states(team.stack.client, team.long, 2)["Cached"] == STAGES_BEFORE_TRAINING


def test_cancelled_round_cancels_its_training_elsewhere(team: Team) -> None:
    run = team.stack.start_run(REMOTE).id
    team.stack.wait_for("the training in its pool", lambda: steps_made(team.rounds.remote) > 2, PATIENCE)
    assert training_processes(team.stack, "gpu") and not training_processes(team.stack, "cpu")
    (training,) = [one for one in team.stack.runs_of(TRAINING) if one.state and one.state.is_running()]
    team.stack.cancel(run)
    for one in (run, training.id):
        ended = team.end_of(one)
        assert ended.state is not None and ended.state.is_cancelled(), ended.state
    team.stack.wait_for("the end of the process", lambda: not training_processes(team.stack, "gpu"), 10)


def test_schedule_fires_by_itself_and_its_training_runs_elsewhere(team: Team) -> None:
    def completed() -> list[FlowRun]:
        return [one for one in team.stack.runs_of(SCHEDULED) if one.state and one.state.is_completed()]

    (run, *_) = team.stack.wait_for("a scheduled round", completed, PATIENCE)
    assert run.auto_scheduled
    trainings = [one for one in team.stack.runs_of(TRAINING) if one.state and one.state.is_completed()]
    assert trainings and {one.work_pool_name for one in trainings} == {GPU_POOL}
    assert all(one.parent_task_run_id for one in trainings), "a part of the round's run in the UI"


def test_backfill_does_a_stage_over_beside_the_old_result(team: Team) -> None:
    before = attempts_at(team.rounds.long, "pairs")
    done = team.end_of(team.stack.start_run(BACKFILL, stage="pairs", refresh=True).id)
    assert done.state is not None and done.state.is_completed(), done.state
    assert attempts_at(team.rounds.long, "pairs") == before + 1


def test_run_that_died_with_its_worker_is_found_and_retried(team: Team) -> None:
    ended = team.end_of(team.crashing)
    assert ended.state is not None and ended.state.is_crashed()
    assert "heartbeat stopped" in (ended.state.message or "")
    steps = checkpoint_steps(team.rounds.crashing)
    team.stack.start_worker("spare", SPARE_POOL)
    team.stack.retry(team.crashing)
    takeovers = team.stack.wait_for("a takeover", lambda: resumed_from(team.rounds.crashing)[1:], PATIENCE)
    assert takeovers == [max(steps)]
    done = team.end_of(team.crashing)
    assert done.state is not None and done.state.is_completed(), done.state
    assert task_states(team.stack.client, team.crashing, 2)["Cached"] == STAGES_BEFORE_TRAINING


def test_server_kept_it_all_in_postgresql_and_no_log_has_its_password(team: Team) -> None:
    assert asyncio.run(_states_in(team.database)) == {
        str(run.id): str(run.state.type.value) for run in team.stack.client.read_flow_runs() if run.state
    }
    logs = [path.read_text(errors="replace") for path in team.stack.folder.glob("*.log")]
    assert len(logs) >= 4 and not any(team.database.password in log for log in logs)


async def _states_in(database: PostgresServer) -> dict[str, str]:
    """Return the states of all flow runs by id, asked of the database itself."""
    connection = await asyncpg.connect(database.url.replace("+asyncpg", ""))
    try:
        return {
            str(row["id"]): row["state_type"] for row in await connection.fetch("select id, state_type from flow_run")
        }
    finally:
        await connection.close()
