"""Prefect's server on PostgreSQL: a stage of ours and a wide map keep all their states, and no secret is in the log."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.support.postgres import PostgresServer
from tests.support.prefect_server import prefect_server_process

pytestmark = pytest.mark.timeout(600)
MAPPED = 200

SCRIPT = """
import json, sys
from collections import Counter
from pathlib import Path

from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.runtime import flow_run

from flows.steps import run_stage
from ospo_core.schema import StageName
from ospo_core.stages import STAGES
from tasks.jobs import StageJob
from tests.support.fake_stages import NumbersStage
from tests.support.rounds import made_up_model, small_round

STAGES[StageName.PROMPTS] = NumbersStage()
config = small_round(Path(sys.argv[1]))
job = StageJob(config=config, stage=StageName.PROMPTS, model=made_up_model(config), upstream={})


@task
def double(number: int) -> int:
    return 2 * number


@flow
def wide() -> tuple[int, bool, str]:
    doubled = sum(double.map(range(MAPPED)).result())
    return doubled, run_stage(job)[1], str(flow_run.id)


results = [wide(), wide()]
with get_client(sync_client=True) as client:
    states = Counter()
    offset = 0
    while page := client.read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[results[1][2]])), limit=200, offset=offset
    ):
        states.update(run.state.name for run in page)
        offset += len(page)
Path(sys.argv[2]).write_text(json.dumps([[one[:2] for one in results], states]))
""".replace("MAPPED", str(MAPPED))


def test_prefect_on_postgresql_keeps_every_state(postgres: PostgresServer, tmp_path: Path) -> None:
    outcome, log = tmp_path / "outcome.json", tmp_path / "server.log"
    with prefect_server_process(tmp_path / "home", log, postgres.url) as address:
        environment = {**os.environ, "PREFECT_API_URL": address, "PREFECT_HOME": str(tmp_path / "client")}
        command = [sys.executable, "-c", SCRIPT, str(tmp_path / "round"), str(outcome)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results, states = json.loads(outcome.read_text(encoding="utf-8"))
    total = MAPPED * (MAPPED - 1)
    assert results == [[total, True], [total, False]], "computed, then cached"
    assert Counter(states) == {"Completed": MAPPED, "Cached": 1}
    written = log.read_text(encoding="utf-8") + done.stdout + done.stderr
    assert "Uvicorn running" in written and postgres.password not in written
