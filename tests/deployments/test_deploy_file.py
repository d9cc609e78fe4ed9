"""`ospo deploy --check`: whatever is wrong with a file is named, with its place and the nearest right word."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.deploy_file import read_deploy_file
from deployments.deployables import Deployable, check
from ospo.deploy import deploy
from ospo_core.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
Document = dict[str, Any]


@pytest.fixture
def document() -> Document:
    """A file of one deployment with nothing wrong in it."""
    return {
        "work_pools": [{"name": "pool", "concurrency_limit": 1}],
        "deployments": [
            {
                "name": "tiny",
                "entrypoint": "flows/improve.py:self_improve",
                "work_pool": {"name": "pool"},
                "concurrency_limit": {"limit": 1},
                "profile": "smoke",
                "parameters": {"rounds": 3},
                "schedules": [{"cron": "0 2 * * *"}],
            }
        ],
    }


def checked(document: Document, folder: Path) -> list[Deployable]:
    path = folder / "deployments.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return check(read_deploy_file(path), path)


def put(document: Document, place: str, value: object) -> None:
    """Set one entry: a dotted place, numbers for places in lists."""
    *way, last = [int(part) if part.isdigit() else part for part in place.split(".")]
    here: Any = document
    for part in way:
        here = here[part]
    here[last] = value


def test_whole_configuration_is_deployed(document: Document, tmp_path: Path) -> None:
    document["deployments"][0]["overrides"] = ["training.steps=7"]
    (one,) = checked(document, tmp_path)
    assert one.full_name == "self-improve/tiny"
    assert one.parameters["rounds"] == 3
    assert one.parameters["config"]["training"]["steps"] == 7
    assert one.parameters["config"]["name"] == "smoke"


UNKNOWN = {
    "deploymets": ("deploymets", "'deployments'"),
    "work_pools.0.concurency_limit": ("work_pools.0.concurency_limit", "'work_pools.0.concurrency_limit'"),
    "deployments.0.entry_point": ("deployments[0] 'tiny'.entry_point", "'entrypoint'"),
    "deployments.0.work_pool.nam": ("deployments[0] 'tiny'.work_pool.nam", "'work_pool.name'"),
    "deployments.0.concurrency_limit.limt": (
        "deployments[0] 'tiny'.concurrency_limit.limt",
        "'concurrency_limit.limit'",
    ),
    "deployments.0.schedules.0.crom": ("deployments[0] 'tiny'.schedules.0.crom", "'schedules.0.cron'"),
    "deployments.0.parameters.round": ("deployments[0] 'tiny'.parameters.round", "'rounds'"),
}


@pytest.mark.parametrize("place", UNKNOWN)
def test_misspelt_keys_are_errors(place: str, document: Document, tmp_path: Path) -> None:
    field, nearest = UNKNOWN[place]
    put(document, place, "x")
    with pytest.raises(ConfigError) as caught:
        checked(document, tmp_path)
    assert f"{field}: unknown option" in str(caught.value)
    assert f"Did you mean {nearest}?" in str(caught.value)


WRONG: dict[str, tuple[object, str, str]] = {
    "deployments.0.entrypoint": ("flows/improv.py:self_improve", "no such file", "'flows/improve.py'"),
    "deployments.0.entrypoint ": ("flows/improve.py:self_improv", "no such flow", "'self_improve'"),
    "deployments.0.entrypoint  ": ("flows/improve.py:StageName", "is not a flow", "self_improve"),
    "deployments.0.work_pool.name": ("poool", "no such work pool", "'pool'"),
    "deployments.0.profile": ("smok", "profile", "smoke"),
    "deployments.0.overrides": (["training.stepz=3"], "unknown option", "'training.steps'"),
    "deployments.0.parameters.rounds": ("many", "valid integer", "many"),
    "deployments.0.parameters.refresh": (["image"], "Input should be", "'images'"),
    "deployments.0.schedules.0.cron": ("0 25 * * *", "not five fields of cron", "0 25 * * *"),
    "deployments.0.schedules.0.interval": (60, "either `cron` or `interval`", "schedules.0"),
    "deployments.0.schedules.0.timezone": ("Europe/Berlinn", "not a time zone", "Europe/Berlinn"),
    "deployments.0.schedules.0.parameters": ({"config": {"name": "x", "sed": 1}}, "unknown option", "'config.seed'"),
    "deployments.0.concurrency_limit.collision_strategy": ("CANCEL", "Input should be", "CANCEL_NEW"),
    "deployments.0.parameters.config": ({"name": "x"}, "two configurations", "keep one"),
}


@pytest.mark.parametrize("place", WRONG)
def test_wrong_values_are_errors(place: str, document: Document, tmp_path: Path) -> None:
    value, problem, hint = WRONG[place]
    put(document, place.strip(), value)
    with pytest.raises(ConfigError) as caught:
        checked(document, tmp_path)
    assert problem.lower() in str(caught.value).lower()
    assert hint in str(caught.value)
    assert "deployments[0] 'tiny'" in str(caught.value)


def test_all_problems_are_listed(document: Document, tmp_path: Path) -> None:
    put(document, "deployments.0.schedules.0.cron", "daily")
    put(document, "deployments.0.tagz", [])
    with pytest.raises(ConfigError, match=r"2 things in .*deployments\.yaml") as caught:
        checked(document, tmp_path)
    assert "tagz" in str(caught.value) and "'daily'" in str(caught.value)


def test_two_of_one_name_are_refused(document: Document, tmp_path: Path) -> None:
    document["deployments"] *= 2
    with pytest.raises(ConfigError, match=r"deployments\[1\] 'tiny'.name: .*same name") as caught:
        checked(document, tmp_path)
    assert "self-improve/tiny" in str(caught.value)


def test_two_pools_of_one_name_are_refused(document: Document, tmp_path: Path) -> None:
    document["work_pools"] *= 2
    with pytest.raises(ConfigError, match=r"work_pools.*same name"):
        checked(document, tmp_path)


def test_two_schedules_of_one_slug_are_refused(document: Document, tmp_path: Path) -> None:
    document["deployments"][0]["schedules"] = [{"slug": "x", "interval": 60}, {"slug": "x", "interval": 90}]
    with pytest.raises(ConfigError, match=r"schedules.*same slug"):
        checked(document, tmp_path)


def test_schedule_may_not_leave_a_parameter_out(document: Document, tmp_path: Path) -> None:
    entry = document["deployments"][0]
    entry["entrypoint"] = "flows/backfill.py:backfill"
    entry["parameters"] = {}
    with pytest.raises(ConfigError, match=r"schedules\[0\]\.parameters\.stage: is missing"):
        checked(document, tmp_path)
    entry["schedules"] = []
    assert "stage" not in checked(document, tmp_path)[0].parameters


def test_round_may_not_block_its_own_training(document: Document, tmp_path: Path) -> None:
    entry = document["deployments"][0]
    training = {**entry, "entrypoint": "flows/train.py:train", "parameters": {}, "schedules": []}
    entry["overrides"] = ["execution.training_deployment=train/tiny"]
    document["deployments"].append(training)
    with pytest.raises(ConfigError, match="only place of pool 'pool'"):
        checked(document, tmp_path)
    document["work_pools"][0]["concurrency_limit"] = 2
    assert len(checked(document, tmp_path)) == 2


def test_check_needs_no_server(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    deploy(None, None, True)
    assert "12 deployments, nothing wrong" in " ".join(capsys.readouterr().out.split())


def deploy_with(**environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, since Prefect reads its settings once."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_API")}
    command = [sys.executable, "-m", "ospo", "deploy"]
    return subprocess.run(
        command, env={**kept, **environment}, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


def test_without_a_server_it_says_how_to_start_one(tmp_path: Path) -> None:
    done = deploy_with(PREFECT_HOME=str(tmp_path))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "PREFECT_API_URL" in done.stderr and "prefect server start" in done.stderr


def test_server_that_does_not_answer_is_named(tmp_path: Path) -> None:
    done = deploy_with(PREFECT_HOME=str(tmp_path), PREFECT_API_URL="http://127.0.0.1:9/api")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "does not answer" in done.stderr and "http://127.0.0.1:9/api" in done.stderr
