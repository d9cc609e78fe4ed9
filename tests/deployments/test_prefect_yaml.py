"""The shipped file of deployments, without a server: every profile has its own round, every pool exists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.events.schemas.automations import AutomationCore

from deployments.steps import profile
from ospo.deploy import AUTOMATIONS, DEFAULT_FILE, check_keys
from ospo_core.config import profile_names

DOCUMENT: dict[str, Any] = yaml.safe_load(DEFAULT_FILE.read_text(encoding="utf-8"))
ENTRIES: list[dict[str, Any]] = DOCUMENT["deployments"]


def test_all_keys_are_known() -> None:
    check_keys(DOCUMENT, DEFAULT_FILE)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry['entrypoint']}/{entry['name']}")
def test_a_deployment_has_the_profile_of_its_name_and_a_pool_of_the_file(entry: dict[str, Any]) -> None:
    assert entry["build"][0] == {"deployments.steps.profile": {"name": entry["name"]}}
    assert entry["work_pool"]["name"] in {pool["name"] for pool in DOCUMENT["work_pools"]}


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if "schedules" in entry], ids=lambda one: one["name"])
def test_a_schedule_is_asked_for_by_its_own_name(entry: dict[str, Any]) -> None:
    (step,) = [step for step in entry["build"] if "deployments.steps.schedule" in step]
    flow = entry["entrypoint"].rpartition(".")[2].replace("_", "-")
    slugs = [one["slug"] for one in entry["schedules"]]
    assert step["deployments.steps.schedule"] == {"deployment": f"{flow}/{entry['name']}", "slug": slugs[0]}
    assert len(slugs) == 1


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_has_a_round(name: str) -> None:
    assert ("flows.round.self_improvement_round", name) in {(one["entrypoint"], one["name"]) for one in ENTRIES}


def test_one_run_at_a_time_uses_the_gpu() -> None:
    pools = {pool["name"]: pool.get("concurrency_limit") for pool in DOCUMENT["work_pools"]}
    assert pools == {"ospo-cpu": None, "ospo-gpu": 1}


def test_workers_run_in_the_folder_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSPO_HOME", "/opt/ospo")
    assert profile("smoke", ["training.steps=3"])["home"] == "/opt/ospo"
    assert profile("smoke", ["training.steps=3"])["config"]["training"]["steps"] == 3
    monkeypatch.delenv("OSPO_HOME")
    assert profile("smoke")["home"] == str(Path.cwd())


def test_automation_is_one_that_prefect_understands() -> None:
    document = yaml.safe_load(AUTOMATIONS.read_text(encoding="utf-8"))
    (automation,) = [AutomationCore.model_validate(entry) for entry in document["automations"]]
    assert automation.enabled and automation.trigger.type == "event"
