"""The configuration of a round, read from a profile (YAML) and overrides such as `training.steps=50`.

Overrides are applied here, not by pydantic-settings, which would read flags and environment variables of its own.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ospo_core.config.problems import config_error
from ospo_core.config.sections import RoundConfig
from ospo_core.config.text_files import local_path
from ospo_core.config.yaml_text import parse_yaml, read_yaml
from ospo_core.errors import ConfigError

_DEEPEST = 10
"""Parts of an option's name; no option has as many."""


def profiles_dir() -> Path:
    """Return the folder of the shipped profiles, relative to the installed project."""
    return Path(__file__).resolve().parents[2] / "deployments" / "profiles"


def profile_names() -> list[str]:
    """Return the names of the shipped profiles, sorted."""
    return sorted(path.stem for path in profiles_dir().glob("*.yaml"))


def load_profile(name_or_path: str, overrides: Sequence[str] = ()) -> RoundConfig:
    """Read a shipped profile (`shapes`) or a YAML file (`my/round.yaml`), and apply overrides to it.

    Overrides are `dotted.option=value`; the value is read as YAML, and later ones win.

    Raises:
        ConfigError: the profile is missing or not YAML, or options are unknown or invalid; all of them are listed.
    """
    path = _find(name_or_path)
    return _validated({"name": path.stem, **read_yaml(path)}, overrides, name_or_path)


def change_config(config: RoundConfig, overrides: Sequence[str]) -> RoundConfig:
    """Return the configuration with overrides (`dotted.option=value`) applied.

    Raises:
        ConfigError: as `load_profile`.
    """
    return _validated(config.model_dump(mode="json"), overrides, config.name)


def _validated(document: dict[str, Any], overrides: Sequence[str], source: str) -> RoundConfig:
    for override in overrides:
        _apply(document, override)
    try:
        return RoundConfig.model_validate(document)
    except ValidationError as error:
        raise config_error(error, RoundConfig, source=source) from None


def _find(name_or_path: str) -> Path:
    """Return the file that `name_or_path` refers to."""
    is_path = "/" in name_or_path or name_or_path.endswith((".yaml", ".yml"))
    names = profile_names()
    if not is_path and name_or_path in names:
        return profiles_dir() / f"{name_or_path}.yaml"
    if is_path and (path := local_path(name_or_path, "profile")).is_file():
        return path
    close = difflib.get_close_matches(name_or_path, names, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    raise ConfigError(
        "no such profile",
        field="profile",
        value=name_or_path,
        remedy=f"{hint}Give the path of a YAML file, or one of: {', '.join(names) or '(none shipped)'}",
    )


def _apply(document: dict[str, Any], override: str) -> None:
    """Set one `dotted.option=value` in `document`, starting absent mappings from their defaults."""
    dotted, separator, text = override.partition("=")
    keys = dotted.strip().split(".")
    if not separator or not all(keys) or len(keys) > _DEEPEST:
        raise ConfigError(
            "not of the form section.option=value",
            field="--set",
            value=override,
            remedy="For example: --set training.steps=50",
        )
    try:
        value = parse_yaml(text)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"not a YAML value: {problem}", field=dotted, value=text, remedy="Quote it") from None
    place: dict[str, Any] = document
    defaults: object = RoundConfig(name="defaults").model_dump(mode="json")
    for depth, key in enumerate(keys[:-1]):
        defaults = defaults.get(key) if isinstance(defaults, Mapping) else None
        below = place.setdefault(key, dict(defaults) if isinstance(defaults, Mapping) else {})
        if not isinstance(below, dict):
            raise ConfigError(
                "is an option, not a section",
                field=".".join(keys[: depth + 1]),
                value=below,
                remedy=f"Override it as a whole instead of {dotted!r}",
            )
        place = below
    place[keys[-1]] = value
