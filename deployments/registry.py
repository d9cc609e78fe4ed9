"""What `ospo deploy` does with a server: pools, the automation and deployments, made or brought up to date.

What is as it should be is not touched, so that a second call changes nothing. What people change in the UI stays:
whether a schedule or the automation is active, and the limit of a work pool that is there already.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate, WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyOptions, DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import SCHEDULE_TYPES, CronSchedule, IntervalSchedule
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound
from prefect.utilities.callables import parameter_schema

from deployments.deploy_file import SLUG_PREFIX, PoolEntry, ScheduleEntry
from deployments.deployables import Deployable
from ospo_core.config.profile import read_yaml
from ospo_core.errors import OspoError

Outcome = Literal["created", "updated", "unchanged"]

WORKING_DIRECTORY = "prefect.deployments.steps.set_working_directory"
"""The step with which a worker enters the project's folder before it loads a flow."""


@dataclass(frozen=True)
class Registered:
    """What became of a pool, an automation or a deployment.

    Args:
        kind: what it is.
        name: of it.
        outcome: what was done.
        pool: where a deployment runs.
        notes: what a person should know, such as a schedule that is not active.
    """

    kind: Literal["work pool", "automation", "deployment"]
    name: str
    outcome: Outcome
    pool: str = ""
    notes: tuple[str, ...] = ()


def register_pools(client: SyncPrefectClient, pools: Sequence[PoolEntry]) -> Iterator[Registered]:
    """Create the work pools that are missing."""
    for pool in pools:
        try:
            there = client.read_work_pool(pool.name)
        except ObjectNotFound:
            fresh = WorkPoolCreate(name=pool.name, type=pool.type, concurrency_limit=pool.concurrency_limit)
            client.create_work_pool(fresh)
            yield Registered("work pool", pool.name, "created")
            continue
        notes = []
        if there.type != pool.type:
            notes.append(f"its type is {there.type}, the file says {pool.type}")
        if there.concurrency_limit != pool.concurrency_limit:
            notes.append(f"its limit is {there.concurrency_limit}, the file says {pool.concurrency_limit}; left so")
        if there.is_paused:
            notes.append("paused")
        yield Registered("work pool", pool.name, "unchanged", notes=tuple(notes))


def register_automations(client: SyncPrefectClient, path: Path) -> Iterator[Registered]:
    """Create the automations of a file, or bring them up to date; whether one is enabled is left to the server."""
    for document in read_yaml(path)["automations"]:
        wanted = AutomationCore.model_validate(document)
        there = client.read_automations_by_name(wanted.name)
        if not there:
            client.create_automation(wanted)
            yield Registered("automation", wanted.name, "created")
            continue
        kept = wanted.model_copy(update={"enabled": there[0].enabled})
        same = AutomationCore.model_validate(there[0].model_dump(exclude={"id"})).model_dump() == kept.model_dump()
        if not same:
            client.update_automation(there[0].id, kept)
        notes = () if kept.enabled else ("disabled",)
        yield Registered("automation", wanted.name, "unchanged" if same else "updated", notes=notes)


def register_deployment(client: SyncPrefectClient, one: Deployable, home: Path) -> Registered:
    """Create a deployment or bring it up to date.

    Args:
        client: of the server.
        one: the deployment.
        home: the project's folder where the worker runs; relative storage roots start there.
    """
    flow_id = client.create_flow_from_name(one.flow.name)
    fields = _fields(one, home)
    pool = one.entry.work_pool.name
    try:
        there = client.read_deployment_by_name(one.full_name)
    except ObjectNotFound:
        schedules = [_new_schedule(one, index) for index in range(len(one.entry.schedules))]
        client.create_deployment(flow_id=flow_id, name=one.entry.name, schedules=schedules, **fields)
        return Registered("deployment", one.full_name, "created", pool, _notes(one, schedules))
    same = _as_fields(there) == fields
    if not same:
        client.update_deployment(there.id, DeploymentUpdate.model_validate(fields))
    same = not _update_schedules(client, one, there) and same
    notes = _notes(one, client.read_deployment_schedules(there.id))
    notes += ("the deployment is paused",) if there.paused else ()
    return Registered("deployment", one.full_name, "unchanged" if same else "updated", pool, notes)


def _fields(one: Deployable, home: Path) -> dict[str, Any]:
    """Return what the API is told of a deployment, without its schedules."""
    limit = one.entry.concurrency_limit
    options = limit and ConcurrencyOptions.model_validate(limit.model_dump(exclude={"limit"}))
    return {
        "description": one.entry.description,
        "tags": list(one.entry.tags),
        "entrypoint": one.entry.entrypoint,
        "work_pool_name": one.entry.work_pool.name,
        "job_variables": one.entry.work_pool.job_variables,
        "concurrency_limit": limit and limit.limit,
        "concurrency_options": options,
        "parameters": one.parameters,
        "parameter_openapi_schema": _schema(one),
        "enforce_parameter_schema": True,
        "pull_steps": [{WORKING_DIRECTORY: {"directory": str(home)}}],
    }


def _schema(one: Deployable) -> dict[str, Any]:
    """Return the form of a flow's parameters; without the last key the server would take unknown ones."""
    return {**parameter_schema(one.flow).model_dump(exclude_unset=True), "additionalProperties": False}


def _as_fields(there: DeploymentResponse) -> dict[str, Any]:
    """Return a deployment of the server in the form of `_fields`."""
    names = ("description", "tags", "entrypoint", "work_pool_name", "job_variables", "concurrency_options")
    more = ("parameters", "parameter_openapi_schema", "enforce_parameter_schema", "pull_steps")
    found = {name: getattr(there, name) for name in names + more}
    found["concurrency_limit"] = there.global_concurrency_limit and there.global_concurrency_limit.limit
    return found


def _schedule(entry: ScheduleEntry) -> SCHEDULE_TYPES:
    """Return a schedule as Prefect has it."""
    if entry.cron is not None:
        return CronSchedule(cron=entry.cron, timezone=entry.timezone)
    return IntervalSchedule.model_validate({"interval": entry.interval, "timezone": entry.timezone})


def _new_schedule(one: Deployable, index: int) -> DeploymentScheduleCreate:
    entry = one.entry.schedules[index]
    return DeploymentScheduleCreate(
        schedule=_schedule(entry),
        active=entry.active,
        slug=one.entry.slugs()[index],
        parameters=one.schedules[index],
    )


def _update_schedules(client: SyncPrefectClient, one: Deployable, there: DeploymentResponse) -> bool:
    """Make, change and delete the file's schedules, and no others; return whether anything was to be done."""
    ours = {schedule.slug: schedule for schedule in there.schedules if (schedule.slug or "").startswith(SLUG_PREFIX)}
    changed = False
    for index, slug in enumerate(one.entry.slugs()):
        found, wanted = ours.pop(slug, None), _new_schedule(one, index)
        if found is None:
            client.create_deployment_schedules(there.id, [wanted])
        elif not _same_schedule(found, wanted):
            client.update_deployment_schedule(
                there.id, found.id, schedule=wanted.schedule, parameters=wanted.parameters
            )
        else:
            continue
        changed = True
    for orphan in ours.values():
        client.delete_deployment_schedule(there.id, orphan.id)
        changed = True
    return changed


def _same_schedule(found: DeploymentSchedule, wanted: DeploymentScheduleCreate) -> bool:
    """Tell whether two schedules fire alike; an interval's anchor is the moment when it was made."""
    without = {"anchor_date"}
    same_times = found.schedule.model_dump(exclude=without) == wanted.schedule.model_dump(exclude=without)
    return same_times and found.parameters == wanted.parameters


def _notes(one: Deployable, there: Sequence[DeploymentSchedule | DeploymentScheduleCreate]) -> tuple[str, ...]:
    """Return what to say of a deployment's schedules: when they fire, and where a person has changed that."""
    listed = dict(zip(one.entry.slugs(), one.entry.schedules, strict=True))
    notes = []
    for schedule in there:
        entry = listed.get(schedule.slug or "")
        times = getattr(schedule.schedule, "cron", None) or f"every {getattr(schedule.schedule, 'interval', '?')}"
        state = "active" if schedule.active else "not active"
        if entry is None:
            notes.append(f"{times}: {state}; made outside the file")
        elif entry.active != schedule.active:
            notes.append(f"{times}: {state}, as it was set on the server; the file says otherwise")
        else:
            notes.append(f"{times}: {state}")
    return tuple(notes)


def check_home(home: Path, deployables: Sequence[Deployable]) -> str:
    """Return a note if `home` is not on this machine.

    Raises:
        OspoError: it is, but is not this project's folder.
    """
    if not home.is_dir():
        return f"{home} is not on this machine and was not looked at; the workers' machines must have it"
    missing = [one.entry.entrypoint for one in deployables if not (home / one.entry.entrypoint.split(":")[0]).is_file()]
    if missing:
        raise OspoError(
            "is not the project's folder: a worker would not find the flows there",
            field="--home",
            value=str(home),
            remedy=f"Name the folder that has {missing[0].split(':')[0]}",
        )
    return ""
