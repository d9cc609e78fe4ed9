"""`ospo deploy` against a server: what it makes, that it makes it once, and what people have set stays set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import PrefectHTTPStatusError

from ospo.deploy import deploy
from ospo_core.errors import OspoError

NIGHTLY, BACKFILL, ROUND = "nightly-round/shapes", "backfill/shapes", "self-improvement-round/shapes"
COLUMNS = "300"


@pytest.fixture
def client(prefect_server: str) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as found:
        yield found


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Deploy a file, by default the shipped one; give what was printed, one line a row of the table."""
    monkeypatch.setenv("COLUMNS", COLUMNS)
    monkeypatch.delenv("OSPO_HOME", raising=False)

    def run(file: Path | None = None, home: Path | None = None) -> str:
        deploy(file, home, False)
        return capsys.readouterr().out

    yield run


def row(text: str, name: str) -> str:
    """The table's only line that is about one thing."""
    (line,) = [line for line in text.splitlines() if line.startswith("│") and line.split("│")[2].strip() == name]
    return line


def all_deployments(client: SyncPrefectClient) -> list[str]:
    return sorted(one.name for one in client.read_deployments())


def test_shipped_deployments_are_registered_once(client: SyncPrefectClient, said: Any) -> None:
    first = said()
    pools = {pool.name: pool.concurrency_limit for pool in client.read_work_pools()}
    assert pools["ospo-gpu"] == 1 and pools["ospo-cpu"] is None
    (automation,) = client.read_automations_by_name("ospo-crash-silent-runs")
    assert automation.enabled
    names = all_deployments(client)
    assert len(names) >= 12
    assert "prefect worker start --pool ospo-gpu" in first
    second = said()
    assert all_deployments(client) == names
    assert len(client.read_automations_by_name("ospo-crash-silent-runs")) == 1
    assert len(client.read_deployment_by_name(NIGHTLY).schedules) == 1
    assert "created" not in second and "updated" not in second
    assert second.count("unchanged") == 12 + 2 + 1  # deployments, pools, automation


def test_schedules_that_people_have_switched_stay_so(client: SyncPrefectClient, said: Any) -> None:
    assert "0 2 * * *: not active" in row(said(), NIGHTLY)
    found = client.read_deployment_by_name(NIGHTLY)
    (schedule,) = found.schedules
    client.update_deployment_schedule(found.id, schedule.id, active=True)
    try:
        assert "0 2 * * *: active, as it was set on the server" in row(said(), NIGHTLY)
        (kept,) = client.read_deployment_by_name(NIGHTLY).schedules
        assert kept.active and kept.id == schedule.id
    finally:
        client.update_deployment_schedule(found.id, schedule.id, active=False)


def test_pool_limit_that_people_have_set_stays(client: SyncPrefectClient, said: Any) -> None:
    said()
    client.update_work_pool("ospo-gpu", WorkPoolUpdate(concurrency_limit=2))
    try:
        assert "its limit is 2, the file says 1; left so" in row(said(), "ospo-gpu")
    finally:
        client.update_work_pool("ospo-gpu", WorkPoolUpdate(concurrency_limit=1))


def test_what_the_file_changes_is_changed(client: SyncPrefectClient, said: Any, tmp_path: Path) -> None:
    entry: dict[str, Any] = {
        "name": "changing",
        "entrypoint": "flows/improve.py:self_improve",
        "work_pool": {"name": "changing-pool"},
        "profile": "smoke",
        "schedules": [{"slug": "a", "cron": "0 3 * * *", "active": False}],
    }
    document = {"work_pools": [{"name": "changing-pool"}], "deployments": [entry]}
    file = tmp_path / "deployments.yaml"

    def deployed() -> tuple[str, DeploymentResponse]:
        file.write_text(yaml.safe_dump(document), encoding="utf-8")
        text = said(file)
        return row(text, "self-improve/changing"), client.read_deployment_by_name("self-improve/changing")

    line, found = deployed()
    assert "created" in line
    entry["parameters"] = {"rounds": 4}
    entry["schedules"] = [{"slug": "b", "cron": "0 4 * * *", "active": False}]
    line, changed = deployed()
    assert "updated" in line and changed.id == found.id
    assert changed.parameters["rounds"] == 4
    assert [(one.slug, one.schedule.cron) for one in changed.schedules] == [("ospo-b", "0 4 * * *")]  # type: ignore[union-attr]  # it is a cron
    assert "unchanged" in deployed()[0]


def test_home_must_have_the_flows(client: SyncPrefectClient, said: Any, tmp_path: Path) -> None:
    with pytest.raises(OspoError, match="--home: is not the project's folder"):
        said(home=tmp_path)
    elsewhere = Path("/opt/not-here/ospo")
    assert f"Workers run in {elsewhere} ({elsewhere} is not on this machine" in " ".join(said(home=elsewhere).split())
    steps = client.read_deployment_by_name(ROUND).pull_steps
    assert steps == [{"prefect.deployments.steps.set_working_directory": {"directory": str(elsewhere)}}]


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


def test_form_has_choices_defaults_and_descriptions(client: SyncPrefectClient, said: Any) -> None:
    said()
    schema: dict[str, Any] = client.read_deployment_by_name(BACKFILL).parameter_openapi_schema or {}
    assert resolve(schema, field(schema, "stage"))["enum"][:2] == ["prompts", "perturbations"]
    assert set(schema["required"]) == {"config", "stage"}
    assert field(schema, "cascade")["type"] == "boolean" and field(schema, "cascade")["default"] is False
    assert field(schema, "where")["description"].startswith("condition in SQL")
    assert field(schema, "config.training.steps")["default"] > 0
    assert field(schema, "config.execution.runner")["enum"] == ["local", "ray"]
    assert "Ray cluster" in field(schema, "config.execution.runner")["description"]
    assert resolve(schema, field(schema, "config.training"))["additionalProperties"] is False


def test_form_of_a_round_offers_stages(client: SyncPrefectClient, said: Any) -> None:
    said()
    found = client.read_deployment_by_name(ROUND)
    schema: dict[str, Any] = found.parameter_openapi_schema or {}
    assert "training" in resolve(schema, field(schema, "until"))["enum"]
    items = resolve(schema, field(schema, "refresh"))["items"]
    assert "images" in resolve(schema, items)["enum"]
    assert found.parameters["config"]["training"]["steps"] > 0, "the form is filled with the whole profile"


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"refesh": ["images"]}, "refesh"),
        ({"config": {"name": "x", "training": {"stepz": 3}}}, "stepz"),
        ({"until": "image"}, "image"),
    ],
)
def test_server_refuses_wrong_parameters_by_name(
    client: SyncPrefectClient, said: Any, parameters: dict[str, Any], named: str
) -> None:
    said()
    identity = client.read_deployment_by_name(ROUND).id
    with pytest.raises(PrefectHTTPStatusError) as refused:
        client.create_flow_run_from_deployment(identity, parameters=parameters)
    assert named in str(refused.value)
