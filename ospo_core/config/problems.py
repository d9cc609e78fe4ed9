"""Pydantic's validation errors as ConfigErrors that name option, value and remedy.

Pydantic's own text names neither the closest known option nor a remedy, and repeats credentials.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ospo_core.errors import ConfigError

_MOST_SHOWN = 20
"""Problems in one message."""


def config_error(error: ValidationError, model: type[BaseModel], *, source: str) -> ConfigError:
    """Return one ConfigError that names every problem pydantic found in `source` while validating `model`."""
    found = error.errors()
    problems = [_problem(details, model) for details in found[:_MOST_SHOWN]]
    if len(found) == 1:
        return problems[0]
    lines = "\n".join(f"  {problem}" for problem in problems)
    if len(found) > len(problems):
        lines += f"\n  and {len(found) - len(problems)} more"
    return ConfigError(f"{len(found)} options of profile {source!r} cannot be used:\n{lines}")


def _problem(details: ErrorDetails, model: type[BaseModel]) -> ConfigError:
    """Return the ConfigError of one of pydantic's error entries."""
    location = [str(part) for part in details["loc"] if part != "[key]"]
    kind, message, value, dotted = details["type"], details["msg"], details["input"], ".".join(location)
    if kind == "missing":
        return ConfigError("is missing", field=dotted, remedy="Give it a value")
    if kind == "extra_forbidden":
        return ConfigError("unknown option", field=dotted, value=value, remedy=_known_option(location, model))
    if isinstance(value, (dict, BaseModel)) and kind == "value_error":
        value = None
    expected = str(details.get("ctx", {}).get("expected", "")) if kind in {"enum", "literal_error"} else ""
    close = difflib.get_close_matches(str(value), re.findall(r"'([^']*)'", expected), n=1)
    message = message.removeprefix("Value error, ")
    remedy = _did_you_mean(close[0]) if close else ""
    return ConfigError(message[:1].lower() + message[1:], field=dotted, value=value, remedy=remedy)


def _did_you_mean(name: str) -> str:
    return f"Did you mean {name!r}? Correct the spelling"


def _known_option(location: Sequence[str], model: type[BaseModel]) -> str:
    """Return the remedy for an unknown option: the closest known one, here or elsewhere, or all that are known here."""
    *above, name = location
    options = list(_all_options(model))
    start = "".join(f"{part}." for part in above if not part.isdigit())  # an index into a list names no option
    known = [one.removeprefix(start) for one in options if one.startswith(start) and "." not in one.removeprefix(start)]
    if close := difflib.get_close_matches(name, known, n=1):
        return _did_you_mean(".".join([*above, close[0]]))
    if elsewhere := [one for one in options if one.endswith(f".{name}")]:
        return _did_you_mean(elsewhere[0])
    return f"Known here: {', '.join(known)}"


def _all_options(model: type[BaseModel], prefix: str = "") -> Iterable[str]:
    """Yield every dotted option under `model`, sections among them."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from _all_options(part, f"{prefix}{name}.")
