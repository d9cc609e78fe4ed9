"""What `ospo deploy` does: create what `prefect deploy` expects, then run it on the file of deployments."""

from __future__ import annotations

import difflib
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

import deployments
from flows.prefect_server import check_answers, configure_prefect, prefect_settings
from ospo import output
from ospo_core.config import load_profile
from ospo_core.config.text_files import local_path
from ospo_core.config.yaml_text import read_yaml
from ospo_core.errors import ConfigError, OspoError, has_userinfo

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

FOLDER = Path(deployments.__file__).resolve().parent
DEFAULT_FILE = FOLDER / "prefect.yaml"
AUTOMATIONS = FOLDER / "automations.yaml"

_Form = TypeVar("_Form", bound=BaseModel)
_OWN_KEYS = ("work_pools", "definitions")
"""Keys of the file that Prefect ignores: the pools to create, and YAML anchors."""

SQLITE = (
    "The server keeps its data in SQLite. That is enough for one worker; with more, it may stand still and answer 503. "
    "For those set PREFECT_SERVER_DATABASE_CONNECTION_URL to a PostgreSQL database before the server starts "
    "(docs/operations.md, Server)."
)


def deploy(file: Path | None, home: Path | None, check_only: bool) -> None:
    """Check a file of deployments and, unless `check_only`, bring the server up to date with it.

    Args:
        file: the file; by default the shipped one.
        home: the folder in which workers run; by default OSPO_HOME, or the current folder.
        check_only: stop after the check; no server is needed.

    Raises:
        ConfigError: the file has a misspelt key, an entry point is not a flow, or a round would block its training.
        OspoError: there is no server, it does not answer, or Prefect refuses a deployment.
    """
    configure_prefect(Path(".ospo") / "scratch")
    prefect_settings()
    path = (file or DEFAULT_FILE).absolute()
    document = read_yaml(path)
    check_keys(document, path)
    check_pools(document, path)
    if check_only:
        output.show_text(f"{path}: {len(document.get('deployments') or [])} deployments, all keys are known")
        return
    address = _server_address()
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        for done in (*_create_pools(client, document.get("work_pools") or []), *_register_automations(client)):
            output.show_text(done)
        paused = [one.id for one in client.read_deployments() if one.paused]
        try:
            _prefect_deploy(path, address, home)
        finally:
            for identity in paused:  # Prefect resumes what it updates
                client.pause_deployment(identity)
        if _runs_on_sqlite(client):
            output.show_text(SQLITE)
    output.show_text("Start workers with PREFECT_RUNNER_HEARTBEAT_FREQUENCY=30, so that dead runs are noticed.")


def _prefect_deploy(path: Path, address: str, home: Path | None) -> None:
    """Run `prefect deploy` on a file; its messages go to the terminal.

    Raises:
        OspoError: it failed.
    """
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(path)]
    environment = {**os.environ, "PREFECT_API_URL": address}
    if home is not None:
        environment["OSPO_HOME"] = str(local_path(str(home), "--home").absolute())
    if subprocess.run(command, env=environment, check=False).returncode != 0:
        raise OspoError("Prefect refused a deployment", field=str(path), remedy="Its message is above")


def check_keys(document: Mapping[str, Any], path: Path) -> None:
    """Check the keys of a file of deployments, since Prefect ignores those that it does not know, and its form.

    Raises:
        ConfigError: a key is unknown, and the message names its place and the most similar key; a value has a form that
            Prefect does not read, or an address with credentials; or an entry point is not a flow.
    """
    from prefect.cli.deploy import _models as models
    from prefect.client.schemas.actions import WorkPoolCreate

    known = {*_fields(models.PrefectYamlModel), *_OWN_KEYS}
    _check(document, known, str(path))
    for pool in _entries(document, "work_pools", path):
        _check_form(_Pool, pool, f"{path}: work_pools")
        _check_form(WorkPoolCreate, {"type": "process", **pool}, f"{path}: work_pools")
    for entry in _entries(document, "deployments", path):
        place = f"{path}: deployment {entry.get('name')!r} of {entry.get('entrypoint')!r}"
        _check(entry, _fields(models.DeploymentConfig), place)
        _check(entry.get("work_pool"), _fields(models.WorkPoolConfig), f"{place}: work_pool")
        _check(entry.get("concurrency_limit"), _fields(models.ConcurrencyLimitSpec), f"{place}: concurrency_limit")
        schedules = entry.get("schedules")
        for schedule in schedules if isinstance(schedules, list) else ():
            _check(schedule, _fields(models.RawScheduleConfig), f"{place}: schedules")
        _check_form(models.DeploymentConfig, entry, place)
        _check(entry.get("parameters"), _parameters(entry.get("entrypoint"), place), f"{place}: parameters")
        _refuse_credentials([entry.get("parameters"), entry.get("build"), schedules], place)
    _check_form(models.PrefectYamlModel, document, str(path))


def check_pools(document: Mapping[str, Any], path: Path) -> None:
    """Refuse a round that would occupy the only slot of the work pool in which its own training waits.

    Raises:
        ConfigError: there is one.
    """
    single = {pool["name"] for pool in _entries(document, "work_pools", path) if pool.get("concurrency_limit") == 1}
    pools: dict[str, str | None] = {}
    wanted: dict[str, str | None] = {}
    for entry in _entries(document, "deployments", path):
        flow = re.split("[.:]", entry["entrypoint"])[-1].replace("_", "-")
        name = f"{flow}/{entry.get('name')}"
        pools[name] = (entry.get("work_pool") or {}).get("name")
        steps = entry.get("build") or []
        for step in (
            (steps if isinstance(steps, list) else [steps]) if flow != "train" and pools[name] in single else []
        ):
            if (options := step.get("deployments.steps.profile")) is not None:
                chosen = _check_form(_ProfileStep, options, f"{path}: deployment {name!r}: deployments.steps.profile")
                config = load_profile(chosen.name, chosen.overrides)
                wanted[name] = config.execution.training_deployment
    for name, training in wanted.items():
        if training is not None and pools.get(training) == pools[name]:
            raise ConfigError(
                f"the round occupies the only slot of work pool {pools[name]!r}, so its training would wait forever",
                field=f"{path}: deployment {name!r}: execution.training_deployment",
                value=training,
                remedy="Use another pool for the round",
            )


def _fields(model: Any) -> set[str]:
    """Return the keys that a model of Prefect's file format reads."""
    return {field.alias or name for name, field in model.model_fields.items()}


def _parameters(entrypoint: str | None, place: str) -> set[str]:
    """Return the parameters of the flow that an entry point names."""
    from prefect.flows import load_flow_from_entrypoint

    try:
        return set(load_flow_from_entrypoint(entrypoint or "").parameters.properties)
    except Exception as error:  # importing the file may raise anything, which the person who deploys it must see
        remedy = "Name a flow, as in flows.round.self_improvement_round"
        raise ConfigError(f"the entry point is not a flow: {error}", field=place, remedy=remedy) from error


class _Pool(BaseModel):
    """What a work pool has at least; Prefect's own model expects texts before it checks them."""

    name: str
    type: str = "process"


class _ProfileStep(BaseModel):
    """What the build step `deployments.steps.profile` is given."""

    name: str
    overrides: tuple[str, ...] = ()


def _entries(document: Mapping[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    """Return a list of mappings of the document; one that is absent is empty."""
    found = document.get(key) or []
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        remedy = f"Write `{key}:` with one `- name: ...` for each"
        raise ConfigError("is not a list of mappings", field=f"{path}: {key}", value=found, remedy=remedy)
    return found


def _check_form(model: type[_Form], value: Any, place: str) -> _Form:
    """Return `value` as Prefect reads it.

    Raises:
        ConfigError: Prefect would not read it.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = error.errors()[0]
        field = ".".join([place, *(str(part) for part in found["loc"])])
        remedy = "Correct it as Prefect's documentation of prefect.yaml says"
        raise ConfigError(found["msg"], field=field, value=found["input"], remedy=remedy) from None


def _refuse_credentials(value: Any, place: str) -> None:
    """Refuse addresses with credentials in what the server would store as parameters."""
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            _refuse_credentials(part, place)
    elif isinstance(value, str) and has_userinfo(value.partition("=")[2] or value):
        raise ConfigError(
            "an address holds a user name or a password, which the server would store",
            field=place,
            value=value,
            remedy="Give credentials in environment variables or in a block",
        )


def _check(given: Any, known: set[str], place: str) -> None:
    """Check the keys of a mapping; what is no mapping is left to Prefect, which says so."""
    for key in given if isinstance(given, Mapping) else ():
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            remedy = f"Did you mean {close[0]!r}?" if close else f"Known keys: {', '.join(sorted(known))}"
            raise ConfigError("unknown key", field=place, value=key, remedy=remedy)


def _server_address() -> str:
    """Return the address of the server, which answers.

    Raises:
        OspoError: none is named, or it does not answer.
    """
    address = prefect_settings().api.url
    if not address:
        raise OspoError(
            "no Prefect server is named",
            field="PREFECT_API_URL",
            remedy="Start one with `prefect server start` and set PREFECT_API_URL=http://127.0.0.1:4200/api",
        )
    check_answers(address, "Start it, or correct the address")
    return address


def _runs_on_sqlite(client: SyncPrefectClient) -> bool:
    """Return whether the server's database is SQLite, to be called when it has a flow.

    The server tells nobody where its data is. But it looks for names with the operator LIKE, in which a backslash means
    the next character to PostgreSQL, and itself to SQLite. No other database is supported.
    """
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName

    flows = client.read_flows(limit=1)
    escaped = FlowFilter(name=FlowFilterName(like_=f"\\{flows[0].name}")) if flows else None
    return escaped is not None and not client.read_flows(flow_filter=escaped, limit=1)


def _create_pools(client: SyncPrefectClient, pools: list[dict[str, Any]]) -> Iterator[str]:
    """Create missing work pools; existing ones keep their settings."""
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound

    for pool in pools:
        try:
            client.read_work_pool(pool["name"])
            yield f"Work pool {pool['name']} exists"
        except ObjectNotFound:
            client.create_work_pool(WorkPoolCreate(**{"type": "process", **pool}))
            yield f"Work pool {pool['name']} created"


def _register_automations(client: SyncPrefectClient) -> Iterator[str]:
    """Create or update the shipped automations; whether an existing one is enabled is left to the server.

    One that is as it should be is not touched: changing one can stop a busy server on SQLite (PrefectHQ/prefect#23055).
    """
    from prefect.events.schemas.automations import AutomationCore

    for entry in read_yaml(AUTOMATIONS)["automations"]:
        wanted = AutomationCore.model_validate(entry)
        existing = client.read_automations_by_name(wanted.name)
        if not existing:
            client.create_automation(wanted)
            yield f"Automation {wanted.name} created"
            continue
        wanted = wanted.model_copy(update={"enabled": existing[0].enabled})
        if existing[0].model_dump(include=set(AutomationCore.model_fields)) == wanted.model_dump():
            yield f"Automation {wanted.name} exists"
        else:
            client.update_automation(existing[0].id, wanted)
            yield f"Automation {wanted.name} updated"
