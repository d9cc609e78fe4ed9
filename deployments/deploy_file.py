"""The file of deployments: what may stand in it, and one clear error for everything that is wrong with it.

It is written as Prefect's own `prefect.yaml`, of which Prefect ignores misspelt keys. Here every key is known or an
error. Beyond Prefect's keys, `work_pools` says which pools there are, and a deployment may name a `profile` in place of
`parameters.config`, so that the form in the UI is filled with the whole configuration and nothing is written twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import Field, ValidationError, field_validator, model_validator

from ospo_core.config.problems import one_error, problems_in
from ospo_core.config.profile import read_yaml
from ospo_core.config.sections import Positive, Section
from ospo_core.errors import ConfigError

SLUG_PREFIX = "ospo-"
"""Schedules on a server whose slug starts like this are ours; others were made by people and are left alone."""

Entry = TypeVar("Entry", bound=Section)

_PLACE = re.compile(r"^deployments\.(\d+)")
_REMEDY = re.compile(r"'deployments\.\d+\.")


class PoolEntry(Section):
    """A work pool.

    Args:
        name: of the pool.
        type: of its workers.
        concurrency_limit: how many runs it takes at once; None for no limit.
    """

    name: str = Field(min_length=1)
    type: Literal["process"] = "process"
    concurrency_limit: Positive | None = None


class WorkPoolEntry(Section):
    """Where a deployment runs: a pool's name, and variables of its jobs such as `env`."""

    name: str
    job_variables: dict[str, Any] = Field(default_factory=dict)


class ConcurrencyEntry(Section):
    """How many runs of a deployment go on at once, and what becomes of one too many."""

    limit: Positive
    collision_strategy: Literal["ENQUEUE", "CANCEL_NEW"] = "ENQUEUE"
    grace_period_seconds: int | None = Field(None, ge=60, le=86400)


class ScheduleEntry(Section):
    """When a deployment runs by itself.

    Args:
        slug: its name; by default its place in the list.
        cron: five fields of cron.
        interval: seconds between two runs; either this or `cron`.
        timezone: in which `cron` is read.
        active: whether it starts active; later the server's state counts, which people change in the UI.
        parameters: in place of the deployment's; a nested one such as `config` is replaced whole.
    """

    slug: str | None = None
    cron: str | None = None
    interval: float | None = Field(None, gt=0)
    timezone: str = "UTC"
    active: bool = True
    parameters: dict[str, Any] = Field(default_factory=dict)

    @field_validator("cron")
    @classmethod
    def _cron_is_readable(cls, cron: str | None) -> str | None:
        if cron is not None:
            from prefect.client.schemas.schedules import CronSchedule

            try:
                CronSchedule(cron=cron)
            except ValidationError:
                raise ValueError("not five fields of cron, such as '0 2 * * *'") from None
        return cron

    @field_validator("timezone")
    @classmethod
    def _timezone_is_known(cls, timezone: str) -> str:
        import zoneinfo

        if timezone not in zoneinfo.available_timezones():
            raise ValueError("not a time zone, such as 'UTC' or 'Europe/Berlin'")
        return timezone

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.cron is None) == (self.interval is None):
            raise ValueError("a schedule has either `cron` or `interval`")
        return self


class DeploymentEntry(Section):
    """One deployment of one flow.

    Args:
        name: of the deployment; with the flow's name it is unique.
        description: shown in the UI.
        entrypoint: `flows/round.py:self_improvement_round`.
        tags: of the deployment and its runs.
        work_pool: where it runs.
        concurrency_limit: how many runs at once; None for as many as the pool takes.
        profile: a profile whose options become the parameter `config`.
        overrides: changes to that profile, `section.option=value`.
        parameters: the other parameters, or all of them.
        schedules: when it runs by itself.
    """

    name: str = Field(min_length=1, pattern=r"^[^/%&<>]+$")
    description: str = ""
    entrypoint: str = Field(pattern=r"^[\w/.-]+\.py:\w+$")
    tags: tuple[str, ...] = ()
    work_pool: WorkPoolEntry
    concurrency_limit: ConcurrencyEntry | None = None
    profile: str | None = None
    overrides: tuple[str, ...] = ()
    parameters: dict[str, Any] = Field(default_factory=dict)
    schedules: tuple[ScheduleEntry, ...] = ()

    @field_validator("schedules")
    @classmethod
    def _slugs_differ(cls, schedules: tuple[ScheduleEntry, ...]) -> tuple[ScheduleEntry, ...]:
        return _all_different(schedules, lambda index, one: one.slug or str(index), "slug")

    @model_validator(mode="after")
    def _configured_once(self) -> Self:
        if self.profile is not None and "config" in self.parameters:
            raise ValueError("`profile` and `parameters.config` are two configurations; keep one")
        if self.overrides and self.profile is None:
            raise ValueError("`overrides` change a `profile`, and none is named")
        return self

    def slugs(self) -> list[str]:
        """Return the schedules' names on a server."""
        return [SLUG_PREFIX + (schedule.slug or str(index)) for index, schedule in enumerate(self.schedules)]


class DeployFile(Section):
    """The whole file."""

    name: str = "ospo"
    work_pools: tuple[PoolEntry, ...] = ()
    definitions: dict[str, Any] = Field(default_factory=dict, description="YAML anchors, to be used further down.")
    deployments: tuple[DeploymentEntry, ...] = ()

    @field_validator("work_pools")
    @classmethod
    def _names_differ(cls, pools: tuple[PoolEntry, ...]) -> tuple[PoolEntry, ...]:
        return _all_different(pools, lambda index, one: one.name, "name")


def read_deploy_file(path: Path) -> DeployFile:
    """Read a file of deployments; flows and parameters are looked at by `deployments.deployables`.

    Raises:
        ConfigError: it cannot be read, or has unknown keys, wrong values or pools that do not exist; all are listed.
    """
    document = read_yaml(path)
    try:
        found = DeployFile.model_validate(document)
    except ValidationError as error:
        raise listed([_placed(one, document) for one in problems_in(error, DeployFile)], path) from None
    problems = _unknown_pools(found)
    if problems:
        raise listed(problems, path)
    return found


def listed(problems: Sequence[ConfigError], path: Path) -> ConfigError:
    """Return one error that lists what is wrong with the file `path`."""
    return one_error(problems, f"things in {str(path)!r}")


def place(index: int, name: object) -> str:
    """Return how messages name a deployment: its place in the file and its name."""
    return f"deployments[{index}] {name!r}"


def _all_different(entries: tuple[Entry, ...], key: Callable[[int, Entry], str], what: str) -> tuple[Entry, ...]:
    """Return the entries; raise ValueError if two of them have one key."""
    keys = [key(index, one) for index, one in enumerate(entries)]
    twice = next((one for one in keys if keys.count(one) > 1), None)
    if twice is not None:
        raise ValueError(f"two entries have the same {what}, {twice!r}")
    return entries


def _placed(problem: ConfigError, document: dict[str, Any]) -> ConfigError:
    """Return the problem with the deployment's name in its field."""
    match = _PLACE.match(problem.field)
    if match is None:
        return problem
    index = int(match[1])
    entry = document["deployments"][index]
    field = place(index, entry.get("name", "?") if isinstance(entry, dict) else "?") + problem.field[match.end() :]
    return ConfigError(problem.problem, field=field, value=problem.value, remedy=_REMEDY.sub("'", problem.remedy))


def _unknown_pools(document: DeployFile) -> list[ConfigError]:
    import difflib

    known = [pool.name for pool in document.work_pools]
    problems = []
    for index, entry in enumerate(document.deployments):
        if entry.work_pool.name in known:
            continue
        close = difflib.get_close_matches(entry.work_pool.name, known, n=1)
        remedy = f"Did you mean {close[0]!r}? Correct the spelling" if close else "Add it to `work_pools`"
        field = f"{place(index, entry.name)}.work_pool.name"
        problems.append(ConfigError("no such work pool", field=field, value=entry.work_pool.name, remedy=remedy))
    return problems
