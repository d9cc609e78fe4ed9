"""The shipped deployments: every profile has its own, and what is deployed is what the profile says."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from prefect.events.schemas.automations import AutomationCore

from deployments.deploy_file import read_deploy_file
from deployments.deployables import Deployable, check
from ospo.deploy import AUTOMATIONS, DEFAULT_FILE
from ospo_core.config import RoundConfig, load_profile, profiles_dir

DOCUMENT = read_deploy_file(DEFAULT_FILE)
DEPLOYABLES = check(DOCUMENT, DEFAULT_FILE)
PROFILES = sorted(path.stem for path in Path(profiles_dir()).glob("*.yaml"))


@pytest.mark.parametrize("one", DEPLOYABLES, ids=lambda one: one.full_name)
def test_deployed_configuration_is_the_profile(one: Deployable) -> None:
    assert one.entry.profile is not None
    assert RoundConfig.model_validate(one.parameters["config"]) == load_profile(one.entry.profile)
    assert one.entry.profile == one.entry.name


@pytest.mark.parametrize("one", DEPLOYABLES, ids=lambda one: one.full_name)
def test_flow_takes_the_parameters(one: Deployable) -> None:
    assert isinstance(one.flow.validate_parameters(one.parameters)["config"], RoundConfig)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_has_a_round(profile: str) -> None:
    assert f"self-improvement-round/{profile}" in {one.full_name for one in DEPLOYABLES}


def test_one_backfill_takes_the_stage_as_a_parameter() -> None:
    (backfill,) = [one for one in DEPLOYABLES if one.flow.name == "backfill"]
    assert backfill.full_name == "backfill/shapes"
    assert set(backfill.parameters) == {"config", "stage"}


def test_one_run_at_a_time_uses_the_gpu() -> None:
    pools = {pool.name: pool.concurrency_limit for pool in DOCUMENT.work_pools}
    assert pools == {"ospo-cpu": None, "ospo-gpu": 1}


def test_automation_is_one_that_prefect_understands() -> None:
    document = yaml.safe_load(AUTOMATIONS.read_text(encoding="utf-8"))
    (automation,) = [AutomationCore.model_validate(entry) for entry in document["automations"]]
    assert automation.enabled and automation.trigger.type == "event"
