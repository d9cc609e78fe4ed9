"""The shipped deployments are ones that Prefect and the flows accept, key by key."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow
from prefect.events.schemas.automations import AutomationCore

from ospo_core.config import RoundConfig, load_profile

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT: dict[str, Any] = yaml.safe_load((ROOT / "deployments" / "prefect.yaml").read_text(encoding="utf-8"))
DEPLOYMENTS: list[dict[str, Any]] = DOCUMENT["deployments"]
KEYS = {
    "name",
    "description",
    "entrypoint",
    "tags",
    "work_pool",
    "concurrency_limit",
    "parameters",
    "schedules",
}


def flow_of(deployment: dict[str, Any]) -> Flow[..., Any]:
    path, _, name = deployment["entrypoint"].partition(":")
    flow = getattr(importlib.import_module(path.removesuffix(".py").replace("/", ".")), name)
    assert isinstance(flow, Flow)
    return flow


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: f"{d['entrypoint']}/{d['name']}")
def test_deployment_has_known_keys_and_valid_parameters(deployment: dict[str, Any]) -> None:
    assert set(deployment) <= KEYS, "prefect ignores a misspelt key, so the test looks"
    assert set(DOCUMENT) <= {"name", "pull", "definitions", "deployments", "prefect-version"}
    validated = flow_of(deployment).validate_parameters(deployment["parameters"])
    assert isinstance(validated["config"], RoundConfig)


def test_deployments_are_named_apart() -> None:
    names = [(deployment["entrypoint"], deployment["name"]) for deployment in DEPLOYMENTS]
    assert len(set(names)) == len(names)


def test_deployed_configurations_are_the_profiles() -> None:
    for deployment in DEPLOYMENTS:
        config = RoundConfig.model_validate(deployment["parameters"]["config"])
        assert config == load_profile(config.name)


def test_automation_is_one_that_prefect_understands() -> None:
    document = yaml.safe_load((ROOT / "deployments" / "automations.yaml").read_text(encoding="utf-8"))
    (automation,) = [AutomationCore.model_validate(entry) for entry in document["automations"]]
    assert automation.enabled and automation.trigger.type == "event"
