"""Pydantic's validation errors as ConfigErrors that name option, value and remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ospo_core.errors import ConfigError, redact


def config_error(error: ValidationError, model: type[BaseModel], *, source: str) -> ConfigError:
    """Return one ConfigError that names every problem in `error`.

    Args:
        error: raised by pydantic while validating `model`.
        model: root of the configuration; dotted names start at its fields.
        source: name or path of the profile, for the message.
    """
    return one_error(problems_in(error, model), f"options of profile {source!r}")


def problems_in(error: ValidationError, model: type[BaseModel]) -> list[ConfigError]:
    """Return one ConfigError per problem in `error`; arguments as for `config_error`."""
    return [_problem(details, model) for details in error.errors()]


def one_error(problems: Sequence[ConfigError], what: str) -> ConfigError:
    """Return the only problem, or one error that lists them all; `what` names them, in the plural."""
    if len(problems) == 1:
        return problems[0]
    lines = "\n".join(f"  {problem}" for problem in problems)
    return ConfigError(f"{len(problems)} {what} cannot be used:\n{lines}")


def hide_userinfo(value: object) -> object:
    """Return `value` without the `user:secret@` of an address, so that no credential reaches a message."""
    return redact(value) if isinstance(value, str) else value


def _problem(details: ErrorDetails, model: type[BaseModel]) -> ConfigError:
    """Return the ConfigError of one of pydantic's error entries."""
    location = [str(part) for part in details["loc"] if part != "[key]"]
    kind, message, value = details["type"], details["msg"], details["input"]
    if kind == "extra_forbidden":
        return _unknown_option(location, value, model)
    if kind == "missing":
        return ConfigError("is missing", field=".".join(location), remedy="Give it a value")
    choices = _choices(location, details)
    close = difflib.get_close_matches(str(value), choices, n=1)
    remedy = _did_you_mean(close[0]) if close else ""
    if isinstance(value, (dict, BaseModel)) and kind == "value_error":
        value = None
    message = message.removeprefix("Value error, ")
    return ConfigError(_lower(message), field=".".join(location), value=hide_userinfo(value), remedy=remedy)


def _did_you_mean(name: str) -> str:
    """Return the remedy that suggests `name`."""
    return f"Did you mean {name!r}? Correct the spelling"


def _lower(message: str) -> str:
    """Return `message` with a lower-case first letter."""
    return message[:1].lower() + message[1:]


def _unknown_option(location: Sequence[str], value: object, model: type[BaseModel]) -> ConfigError:
    """Return the error for an unknown option; its remedy names the closest known option."""
    known = _fields_at(location[:-1], model)
    close = difflib.get_close_matches(location[-1], known, n=1)
    elsewhere = [dotted for dotted in _all_options(model) if dotted.endswith(f".{location[-1]}")]
    if close:
        remedy = _did_you_mean(".".join([*location[:-1], close[0]]))
    elif elsewhere:
        remedy = _did_you_mean(elsewhere[0])
    else:
        remedy = f"Known here: {', '.join(known)}"
    return ConfigError("unknown option", field=".".join(location), value=hide_userinfo(value), remedy=remedy)


def _choices(location: Sequence[str], details: ErrorDetails) -> list[str]:
    """Return the expected values of an enum or literal error."""
    if details["type"] not in {"enum", "literal_error"}:
        return []
    return re.findall(r"'([^']*)'", str(details.get("ctx", {}).get("expected", "")))


def _fields_at(location: Sequence[str], model: type[BaseModel]) -> list[str]:
    """Return the options of the section at `location`; empty if there is no such section."""
    for name in location:
        if name.isdigit():  # an index into a list: the section is that of the list's field
            continue
        field = model.model_fields.get(name)
        below = _section_of(field.annotation) if field else None
        if below is None:
            return []
        model = below
    return list(model.model_fields)


def _all_options(model: type[BaseModel], prefix: str = "") -> Iterable[str]:
    """Yield every dotted option under `model`."""
    for name, field in model.model_fields.items():
        dotted = f"{prefix}{name}"
        yield dotted
        below = _section_of(field.annotation)
        if below is not None:
            yield from _all_options(below, f"{dotted}.")


def _section_of(annotation: object) -> type[BaseModel] | None:
    """Return the section class in `annotation`, if there is one."""
    candidates = get_args(annotation) if get_origin(annotation) else (annotation,)
    for candidate in candidates:
        if isinstance(candidate, type) and issubclass(candidate, BaseModel) and not issubclass(candidate, Enum):
            return candidate
    return None
