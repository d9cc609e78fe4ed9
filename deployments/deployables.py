"""Deployments that are fit to be registered: entry points are flows, and parameters are ones that the flows take."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import Flow
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

import flows
from deployments.deploy_file import DeployFile, DeploymentEntry, listed, place
from ospo_core.config import RoundConfig, load_profile
from ospo_core.config.problems import problems_in
from ospo_core.errors import ConfigError

SOURCE = Path(flows.__file__).resolve().parents[1]
"""Folder of the installed project, where the entry points are looked for."""


@dataclass(frozen=True)
class Deployable:
    """One deployment, checked.

    Args:
        entry: what the file says.
        flow: the flow of its entry point.
        parameters: whole and JSON: profiles are read, and a configuration has all its defaults.
        schedules: the parameters of each schedule, in the same form.
    """

    entry: DeploymentEntry
    flow: Flow[..., Any]
    parameters: dict[str, Any]
    schedules: tuple[dict[str, Any], ...]

    @property
    def full_name(self) -> str:
        """The name that Prefect's commands take: `flow/deployment`."""
        return f"{self.flow.name}/{self.entry.name}"


def check(document: DeployFile, path: Path) -> list[Deployable]:
    """Return the deployments of a file, ready to be registered.

    Args:
        document: the file.
        path: where it was read, for messages.

    Raises:
        ConfigError: an entry point is not a flow, parameters do not fit, two deployments have one name, or a round
            would wait for a training that cannot start; all are listed.
    """
    found: list[Deployable] = []
    problems: list[ConfigError] = []
    for index, entry in enumerate(document.deployments):
        try:
            found.append(_deployable(entry))
        except _ProblemsError as error:
            problems += [_prefixed(place(index, entry.name), one) for one in error.problems]
    if problems:
        raise listed(problems, path)
    problems = [*_same_names(found), *_blocked_trainings(document, found)]
    if problems:
        raise listed(problems, path)
    return found


class _ProblemsError(Exception):
    """Everything that is wrong with one deployment."""

    def __init__(self, problems: Sequence[ConfigError]) -> None:
        super().__init__(*problems)
        self.problems = problems


def _deployable(entry: DeploymentEntry) -> Deployable:
    """Return one deployment, checked, or raise _ProblemsError."""
    flow = _flow_of(entry.entrypoint)
    given = dict(entry.parameters)
    if entry.profile is not None:
        try:
            given["config"] = load_profile(entry.profile, entry.overrides).model_dump(mode="json")
        except ConfigError as error:
            raise _ProblemsError([_prefixed("" if error.field == "profile" else "profile", error)]) from None
    parameters = _validated(flow, given, "parameters", whole=False)
    schedules = []
    for index, schedule in enumerate(entry.schedules):
        merged = {**parameters, **schedule.parameters}
        whole = _validated(flow, merged, f"schedules[{index}].parameters", whole=True)
        schedules.append({name: whole[name] for name in schedule.parameters})
    return Deployable(entry, flow, parameters, tuple(schedules))


def _flow_of(entrypoint: str) -> Flow[..., Any]:
    """Return the flow that an entry point names."""
    file, _, name = entrypoint.partition(":")
    if not (SOURCE / file).is_file():
        names = sorted(str(path.relative_to(SOURCE)) for path in (SOURCE / "flows").glob("*.py"))
        raise _ProblemsError([_no_such("there is no such file", file, names)])
    try:
        module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
    except Exception as error:  # whatever a file does when it is imported, the person who deploys it must hear of it
        problem = f"cannot be imported: {type(error).__name__}: {error}"
        raise _ProblemsError([ConfigError(problem, field="entrypoint", value=file, remedy="Mend the file")]) from error
    found = getattr(module, name, None)
    if isinstance(found, Flow):
        return found
    names = [key for key, value in vars(module).items() if isinstance(value, Flow)]
    raise _ProblemsError([_no_such("is not a flow" if found else f"there is no such flow in {file}", name, names)])


def _no_such(problem: str, value: str, known: Sequence[str]) -> ConfigError:
    close = difflib.get_close_matches(value, known, n=1)
    remedy = f"Did you mean {close[0]!r}? Correct the spelling" if close else f"There are: {', '.join(known) or 'none'}"
    return ConfigError(problem, field="entrypoint", value=value, remedy=remedy)


def _model_of(flow: Flow[..., Any], *, whole: bool) -> type[BaseModel]:
    """Return a flow's parameters as a pydantic model, whose errors name every option; not `whole`: none is required."""
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(flow.fn, eval_str=True).parameters.items():
        required = parameter.default is inspect.Parameter.empty
        default = parameter.default if not required else ... if whole else None
        fields[name] = (parameter.annotation, default)
    return create_model("Parameters", __config__=ConfigDict(extra="forbid"), **fields)


def _validated(flow: Flow[..., Any], given: dict[str, Any], field: str, *, whole: bool) -> dict[str, Any]:
    """Return the given parameters as JSON, nested defaults filled in.

    A deployment may leave required ones to the person who starts a run; one that starts by itself (`whole`) may not.
    """
    model = _model_of(flow, whole=whole)
    try:
        valid = model.model_validate(given)
    except ValidationError as error:
        raise _ProblemsError([_prefixed(field, one) for one in problems_in(error, model)]) from None
    return valid.model_dump(mode="json", include=set(given))


def _prefixed(prefix: str, problem: ConfigError) -> ConfigError:
    """Return a problem whose field starts further up."""
    return ConfigError(
        problem.problem,
        field=".".join(filter(None, (prefix, problem.field))),
        value=problem.value,
        remedy=problem.remedy,
    )


def _same_names(found: Sequence[Deployable]) -> list[ConfigError]:
    problems: list[ConfigError] = []
    for index, one in enumerate(found):
        earlier = next((place_ for place_ in range(index) if found[place_].full_name == one.full_name), None)
        if earlier is not None:
            field = f"{place(index, one.entry.name)}.name"
            problem = f"deployments[{earlier}] of the same flow has the same name"
            problems.append(ConfigError(problem, field=field, value=one.full_name, remedy="Give one another name"))
    return problems


def _blocked_trainings(document: DeployFile, found: Sequence[Deployable]) -> list[ConfigError]:
    """Return the rounds that would hold the last place of the very pool in which their training waits."""
    limits = {pool.name: pool.concurrency_limit for pool in document.work_pools}
    pools = {one.full_name: one.entry.work_pool.name for one in found}
    problems: list[ConfigError] = []
    for index, one in enumerate(found):
        if "config" not in one.parameters:
            continue
        wanted = RoundConfig.model_validate(one.parameters["config"]).execution.training_deployment
        pool = one.entry.work_pool.name
        if wanted is None or wanted.partition("/")[0] == one.flow.name:  # the training itself, which waits for none
            continue
        if pools.get(wanted) == pool and limits[pool] == 1:
            field = f"{place(index, one.entry.name)}.parameters.config.execution.training_deployment"
            problem = f"the round takes the only place of pool {pool!r}, in which its training would wait for ever"
            problems.append(ConfigError(problem, field=field, value=wanted, remedy="Let the round run in another pool"))
    return problems
