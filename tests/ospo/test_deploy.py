"""`ospo deploy`, which runs `prefect deploy`: what it creates on a server, and that what people have set stays."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.events.schemas.automations import Automation, AutomationCore
from prefect.exceptions import PrefectHTTPStatusError

from ospo.deploy import DEFAULT_FILE, check_keys, check_pools, deploy
from ospo_core.config import RoundConfig, load_profile
from ospo_core.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
NIGHTLY, BACKFILL, ROUND = "nightly-round/shapes", "backfill/shapes", "self-improvement-round/shapes"


@pytest.fixture(scope="module")
def client(prefect_server: str) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as found:
        yield found


@pytest.fixture(scope="module")
def deployed(client: SyncPrefectClient) -> Callable[[], list[str]]:
    """Deploy the shipped file, and again with every call; give the names of all deployments."""

    def run() -> list[str]:
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("OSPO_HOME", raising=False)
            deploy(None, Path("/opt/not-here/ospo"), False)
        return sorted(one.name for one in client.read_deployments())

    run()
    return run


def test_deploying_again_changes_nothing_that_people_have_set(
    client: SyncPrefectClient, deployed: Callable[[], list[str]]
) -> None:
    found = client.read_deployment_by_name(NIGHTLY)
    (schedule,) = found.schedules
    assert not schedule.active, "a schedule is registered, and people activate it"
    assert {pool.name: pool.concurrency_limit for pool in client.read_work_pools()}["ospo-gpu"] == 1
    names = sorted(one.name for one in client.read_deployments())
    paused = client.read_deployment_by_name(BACKFILL).id
    (automation,) = client.read_automations_by_name("ospo-crash-silent-runs")
    client.update_deployment_schedule(found.id, schedule.id, active=True)
    client.update_work_pool("ospo-gpu", WorkPoolUpdate(concurrency_limit=2))
    client.pause_deployment(paused)
    client.pause_automation(automation.id)
    try:
        assert deployed() == names and len(names) >= 12
        (kept,) = client.read_deployment_by_name(NIGHTLY).schedules
        assert kept.active and kept.id == schedule.id
        assert client.read_work_pool("ospo-gpu").concurrency_limit == 2
        assert client.read_deployment_by_name(BACKFILL).paused
        (same,) = client.read_automations_by_name("ospo-crash-silent-runs")
        assert same.id == automation.id and not same.enabled
    finally:
        client.update_deployment_schedule(found.id, schedule.id, active=False)
        client.update_work_pool("ospo-gpu", WorkPoolUpdate(concurrency_limit=1))
        client.resume_deployment(paused)
        client.resume_automation(automation.id)


@pytest.mark.usefixtures("deployed")
def test_parameters_are_the_whole_profile_and_workers_run_at_home(client: SyncPrefectClient) -> None:
    for entry in yaml.safe_load(DEFAULT_FILE.read_text(encoding="utf-8"))["deployments"]:
        flow = entry["entrypoint"].rpartition(".")[2].replace("_", "-")
        found = client.read_deployment_by_name(f"{flow}/{entry['name']}")
        assert RoundConfig.model_validate(found.parameters["config"]) == load_profile(entry["name"])
        assert set(found.parameters) == set(entry["parameters"])
        assert found.pull_steps == [
            {"prefect.deployments.steps.set_working_directory": {"directory": "/opt/not-here/ospo"}}
        ]
        limit = found.global_concurrency_limit
        assert (limit and limit.limit) == (1 if "concurrency_limit" in entry else None)


def resolve(schema: dict[str, Any], place: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference within a schema, through `anyOf` with null and `allOf`."""
    options = place.get("anyOf") or place.get("allOf") or [place]
    found = next(option for option in options if option.get("type") != "null")
    while "$ref" in found:
        found = schema["definitions"][found["$ref"].rpartition("/")[2]]
    return found


def field(schema: dict[str, Any], dotted: str) -> dict[str, Any]:
    """One field of a form: its entry, not what it refers to."""
    here, entry = schema, {}
    for name in dotted.split("."):
        entry = here["properties"][name]
        here = resolve(schema, entry)
    return entry


@pytest.mark.usefixtures("deployed")
def test_form_has_choices_defaults_and_descriptions(client: SyncPrefectClient) -> None:
    schema: dict[str, Any] = client.read_deployment_by_name(BACKFILL).parameter_openapi_schema or {}
    assert resolve(schema, field(schema, "stage"))["enum"][:2] == ["prompts", "perturbations"]
    assert set(schema["required"]) == {"config", "stage"}
    assert field(schema, "cascade")["type"] == "boolean" and field(schema, "cascade")["default"] is False
    assert field(schema, "where")["description"].startswith("SQL condition")
    assert field(schema, "config.training.steps")["default"] > 0
    assert field(schema, "config.execution.runner")["enum"] == ["local", "ray"]
    assert "Ray cluster" in field(schema, "config.execution.runner")["description"]
    assert resolve(schema, field(schema, "config.training"))["additionalProperties"] is False


@pytest.mark.usefixtures("deployed")
def test_form_of_a_round_offers_stages(client: SyncPrefectClient) -> None:
    found = client.read_deployment_by_name(ROUND)
    schema: dict[str, Any] = found.parameter_openapi_schema or {}
    assert "training" in resolve(schema, field(schema, "until"))["enum"]
    items = resolve(schema, field(schema, "refresh"))["items"]
    assert "images" in resolve(schema, items)["enum"]
    assert found.parameters["config"]["training"]["steps"] > 0, "the form is filled with the whole profile"


@pytest.mark.usefixtures("deployed")
@pytest.mark.parametrize(
    ("parameters", "named"),
    [({"config": {"name": "x", "training": {"stepz": 3}}}, "stepz"), ({"until": "image"}, "image")],
)
def test_server_refuses_wrong_parameters_by_name(
    client: SyncPrefectClient, parameters: dict[str, Any], named: str
) -> None:
    identity = client.read_deployment_by_name(ROUND).id
    with pytest.raises(PrefectHTTPStatusError) as refused:
        client.create_flow_run_from_deployment(identity, parameters=parameters)
    assert named in str(refused.value)


def document(**changes: Any) -> dict[str, Any]:
    """A file of one deployment with nothing wrong in it, and changes to that deployment."""
    entry = {
        "name": "tiny",
        "entrypoint": "flows.improve.self_improve",
        "work_pool": {"name": "tiny-pool"},
        "concurrency_limit": {"limit": 1, "collision_strategy": "ENQUEUE"},
        "build": [{"deployments.steps.profile": {"name": "smoke", "overrides": ["training.steps=7"]}}],
        "parameters": {"config": "{{ config }}", "rounds": 3},
        "schedules": [{"slug": "a", "cron": "0 3 * * *", "active": False}],
    }
    return {
        "work_pools": [{"name": "tiny-pool", "type": "process"}],
        "pull": [{"prefect.deployments.steps.set_working_directory": {"directory": "{{ home }}"}}],
        "deployments": [{**entry, **changes}],
    }


def test_what_the_file_changes_is_changed(client: SyncPrefectClient, tmp_path: Path) -> None:
    file = tmp_path / "deployments.yaml"
    for changes in ({}, {"parameters": {"config": "{{ config }}", "rounds": 4}}):
        file.write_text(yaml.safe_dump(document(**changes)), encoding="utf-8")
        deploy(file, None, False)
    found = client.read_deployment_by_name("self-improve/tiny")
    assert found.parameters["rounds"] == 4 and found.parameters["config"]["training"]["steps"] == 7
    assert [(one.slug, one.active) for one in found.schedules] == [("a", False)]


@pytest.mark.usefixtures("deployed")
def test_it_says_what_it_did_and_what_a_server_on_sqlite_is_enough_for(
    client: SyncPrefectClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def automation() -> Automation:
        (found,) = client.read_automations_by_name("ospo-crash-silent-runs")
        return found

    file = tmp_path / "deployments.yaml"
    whole = yaml.safe_load(Path("deployments/prefect.yaml").read_text(encoding="utf-8"))
    file.write_text(yaml.safe_dump({**whole, "deployments": whole["deployments"][:1]}), encoding="utf-8")
    shipped = automation()
    changed = {**shipped.model_dump(exclude={"id", "owner_resource"}), "description": "another one"}
    client.update_automation(shipped.id, AutomationCore.model_validate(changed))
    for done in ("updated", "exists"):
        capsys.readouterr()
        deploy(file, Path("/opt/not-here/ospo"), False)
        said = capsys.readouterr().out
        assert f"Automation ospo-crash-silent-runs {done}" in said and automation() == shipped
        assert said.count("SQLite") == 1 and "enough for one worker" in said and "PostgreSQL" in said


@pytest.mark.parametrize(
    ("changes", "key", "nearest"),
    [
        ({"entry_point": "x"}, "entry_point", "entrypoint"),
        ({"work_pool": {"nam": "x"}}, "nam", "name"),
        ({"concurrency_limit": {"limt": 1}}, "limt", "limit"),
        ({"schedules": [{"crom": "0 2 * * *"}]}, "crom", "cron"),
        ({"parameters": {"round": 1}}, "round", "rounds"),
    ],
)
def test_misspelt_keys_are_errors(changes: dict[str, Any], key: str, nearest: str) -> None:
    check_keys(document(), Path("deployments.yaml"))
    with pytest.raises(ConfigError, match=rf"'tiny'.*unknown key \(got '{key}'\)\. Did you mean '{nearest}'"):
        check_keys(document(**changes), Path("deployments.yaml"))
    with pytest.raises(ConfigError, match=r"unknown key \(got 'deploymets'\)"):
        check_keys({"deploymets": []}, Path("deployments.yaml"))


ENTRY = "deployments: [{name: t, entrypoint: flows.round.self_improvement_round, "


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("deployments: 3", "deployments: is not a list of mappings"),
        ("deployments: [3]", "deployments: is not a list of mappings"),
        ("deployments: !!bool x", "not valid YAML"),
        ("work_pools: {a: 1}", "work_pools: is not a list of mappings"),
        ("work_pools: [{type: process}]", "work_pools.name: Field required"),
        ("work_pools: [{name: 3}]", "work_pools.name: Input should be a valid string"),
        ("pull: 3", "pull"),
        (f"{ENTRY}work_pool: 3}}]", "'t'.*work_pool: Input should be"),
        (f"{ENTRY}schedules: [3]}}]", "'t'.*schedules"),
        (f"{ENTRY}concurrency_limit: {{limit: a}}}}]", "'t'.*concurrency_limit"),
        (f"{ENTRY}build: [3]}}]", "'t'.*build"),
        (f"{ENTRY}parameters: 3}}]", "'t'.*parameters: Input should be"),
        (
            f"{ENTRY}parameters: {{config: {{storage: {{root: 's3://me:hush@b'}}}}}}}}]",
            "holds a user name or a password",
        ),
        (f"{ENTRY}build: [{{x: {{overrides: [storage.root=s3://me:hush@b]}}}}]}}]", "holds a user name or a password"),
        (
            f"work_pools: [{{name: g, concurrency_limit: 1}}]\n{ENTRY}work_pool: {{name: g}}, "
            "build: [{deployments.steps.profile: 3}]}]",
            "deployments.steps.profile: Input should be",
        ),
    ],
)
def test_a_file_of_another_form_is_one_message(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "deployments.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=problem) as caught:
        deploy(file, None, True)
    assert str(file) in str(caught.value) and "hush" not in str(caught.value)


def test_entry_points_are_flows() -> None:
    for entrypoint in ("flows.improv.self_improve", "flows.improve.self_improv", "flows.improve.StageName"):
        with pytest.raises(ConfigError, match="entry point is not a flow"):
            check_keys(document(entrypoint=entrypoint), Path("deployments.yaml"))


def test_a_round_that_would_block_its_own_training_is_refused() -> None:
    step = {"name": "smoke", "overrides": ["execution.training_deployment=train/tiny"]}
    blocked = document(build=[{"deployments.steps.profile": step}])
    training = {"name": "tiny", "entrypoint": "flows.train.train", "work_pool": {"name": "tiny-pool"}}
    blocked["deployments"].append({**training, "build": [{"deployments.steps.profile": step}]})
    check_pools(blocked, Path("deployments.yaml"))
    blocked["work_pools"][0]["concurrency_limit"] = 1
    with pytest.raises(ConfigError, match=r"self-improve/tiny.*only slot of work pool 'tiny-pool'.*train/tiny"):
        check_pools(blocked, Path("deployments.yaml"))
    blocked["deployments"][0]["work_pool"]["name"] = "another-pool"
    check_pools(blocked, Path("deployments.yaml"))


def ospo_deploy(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, since Prefect reads its settings once."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_API")}
    command = [sys.executable, "-m", "ospo", "deploy", *arguments]
    return subprocess.run(
        command, env={**kept, **environment}, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


def test_a_failed_deployment_is_an_error(prefect_server: str, tmp_path: Path) -> None:
    file = tmp_path / "deployments.yaml"
    wrong = document(build=[{"deployments.steps.profile": {"name": "smok"}}])
    file.write_text(yaml.safe_dump(wrong), encoding="utf-8")
    done = ospo_deploy("--file", str(file), PREFECT_API_URL=prefect_server)
    assert done.returncode == 1 and "Prefect refused a deployment" in done.stderr


def test_check_needs_no_server(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    deploy(None, None, True)
    count = len(yaml.safe_load(Path("deployments/prefect.yaml").read_text(encoding="utf-8"))["deployments"])
    assert f"{count} deployments, all keys are known" in " ".join(capsys.readouterr().out.split())


def test_without_a_server_it_says_how_to_start_one(tmp_path: Path) -> None:
    done = ospo_deploy(PREFECT_HOME=str(tmp_path))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "PREFECT_API_URL" in done.stderr and "prefect server start" in done.stderr


def test_a_setting_of_prefect_that_cannot_be_used_is_one_message(tmp_path: Path) -> None:
    done = ospo_deploy(PREFECT_HOME=str(tmp_path), PREFECT_API_REQUEST_TIMEOUT="soon")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "request_timeout" in done.stderr.splitlines()[-1]


def test_server_that_does_not_answer_is_named(tmp_path: Path) -> None:
    done = ospo_deploy(PREFECT_HOME=str(tmp_path), PREFECT_API_URL="http://127.0.0.1:9/api")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "does not answer" in done.stderr and "http://127.0.0.1:9/api" in done.stderr
