"""An experiment: one profile, several arms that change a few options of it, several seeds and guidance scales.

An experiment is a folder with `experiment.yaml` and one file per arm. An arm's file is a fragment of a profile with a
`title`; options that it omits are those of the experiment's `common` section, then those of the profile.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator

from ospo_core.config.bounds import Factor, Seed
from ospo_core.config.problems import config_error
from ospo_core.config.profile import load_profile, profiles_dir
from ospo_core.config.sections import Options, RoundConfig
from ospo_core.config.text_files import local_path
from ospo_core.config.yaml_text import read_yaml
from ospo_core.errors import ConfigError

EXPERIMENT_FILE = "experiment.yaml"
SEED_STEP = 1000
"""Added to the seed in every further round, so that no round of one seed repeats the first round of another."""

_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w-]*$")]


class Arm(Options):
    """One of the configurations that are compared."""

    name: _Name
    title: str = Field(min_length=1, description="Name in the tables.")
    config: RoundConfig


class _Comparison(Options):
    """What an experiment file and the experiment read from it have in common."""

    title: str = Field(min_length=1)
    seeds: tuple[Seed, ...] = Field(min_length=1, description="Seeds of complete rounds.")
    guidances: tuple[Factor, ...] = Field(min_length=1, description="Guidance scales of the evaluation.")
    rounds: int = Field(
        1, ge=1, le=1000, description="Rounds per arm; each starts from the model that the previous one trained."
    )
    reference: str | None = Field(None, description="Arm that the others are compared with, in addition to the base.")


class ExperimentConfig(_Comparison):
    """The arms to compare, their seeds, and the evaluation."""

    name: str = Field(min_length=1, max_length=255, description="Name of the experiment's folder.")
    arms: tuple[Arm, ...] = Field(min_length=1)

    def arm_config(self, arm: Arm, seed: int, number: int = 0) -> RoundConfig:
        """Return the configuration of round `number` (from 0) of an arm; every round has its own seed."""
        return arm.config.model_copy(update={"seed": seed + SEED_STEP * number})

    def label(self, arm: Arm, number: int) -> str:
        """Return the label of the model trained in round `number` (from 0) of an arm; with one round the arm's name."""
        return arm.name if self.rounds == 1 else f"{arm.name}-round-{number + 1}"

    def titles(self) -> dict[str, str]:
        """Return the title of each label in the tables."""
        return {
            self.label(arm, number): arm.title if self.rounds == 1 else f"{arm.title}, round {number + 1}"
            for arm in self.arms
            for number in range(self.rounds)
        }


class _Document(_Comparison):
    """The content of `experiment.yaml`."""

    profile: str
    arms: tuple[_Name, ...] = Field(min_length=1)
    common: dict[str, Any] = Field(default_factory=dict)

    @field_validator("arms")
    @classmethod
    def _named_once(cls, arms: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(arms)) < len(arms):
            raise ValueError("names an arm twice")
        return arms


def experiments_dir() -> Path:
    """Return the folder of the shipped experiments."""
    return profiles_dir().parent / "experiments"


def experiment_names() -> list[str]:
    """Return the names of the shipped experiments, sorted."""
    return sorted(path.parent.name for path in experiments_dir().glob(f"*/{EXPERIMENT_FILE}"))


def load_experiment(name_or_path: str, overrides: tuple[str, ...] = ()) -> ExperimentConfig:
    """Read a shipped experiment by name, or the one in the folder of that path.

    `overrides` are `dotted.option=value` of the profile, applied last, to every arm.

    Raises:
        ConfigError: the experiment is missing, or an option is unknown or invalid.
    """
    known = "/" in name_or_path or name_or_path in experiment_names()
    folder = local_path(name_or_path, "experiment") if "/" in name_or_path else experiments_dir() / name_or_path
    if not known or not (folder / EXPERIMENT_FILE).is_file():
        raise ConfigError(
            "no such experiment",
            field="experiment",
            value=name_or_path,
            remedy=f"Give the path of a folder with {EXPERIMENT_FILE}, or one of: {', '.join(experiment_names())}",
        )
    try:
        document = _Document.model_validate(read_yaml(folder / EXPERIMENT_FILE))
    except ValidationError as error:
        raise config_error(error, _Document, source=str(folder / EXPERIMENT_FILE)) from None
    if document.reference is not None and (document.reference not in document.arms or document.rounds > 1):
        raise ConfigError(
            "is not an arm with one round",
            field=f"{folder / EXPERIMENT_FILE}: reference",
            value=document.reference,
            remedy=f"Give one of {', '.join(document.arms)} with rounds: 1, or omit it",
        )
    arms = []
    for name in document.arms:
        fragment = read_yaml(path := folder / f"{name}.yaml")
        title = fragment.pop("title", None)
        if not isinstance(title, str) or not title:
            raise ConfigError("an arm needs a title", field=f"{path}: title", value=title, remedy="Add `title: ...`")
        chosen = [*_flat(document.common), *_flat(fragment), *overrides]
        config = load_profile(document.profile, chosen)
        try:
            arms.append(Arm(name=name, title=title, config=config))
        except ValidationError as error:
            raise config_error(error, Arm, source=str(path)) from None
    _check_comparable(arms)
    shared = {name: getattr(document, name) for name in _Comparison.model_fields}
    try:
        return ExperimentConfig(name=folder.resolve().name, arms=tuple(arms), **shared)
    except ValidationError as error:
        raise config_error(error, ExperimentConfig, source=str(folder)) from None


def _check_comparable(arms: Sequence[Arm]) -> None:
    """Refuse arms that differ in their starting model or in their evaluation: all are compared with one base."""
    first = arms[0]
    for arm in arms[1:]:
        for section in ("storage", "model", "evaluation", "promotion"):
            if getattr(arm.config, section) != getattr(first.config, section):
                raise ConfigError(
                    f"differs from that of arm {first.name!r}, so the two cannot be compared",
                    field=f"{arm.name}.yaml: {section}",
                    remedy=f"Put it under `common` of {EXPERIMENT_FILE}",
                )


def _flat(options: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield nested options as `a.b.c=value`; values are JSON, which is also YAML."""
    for name, value in options.items():
        if not isinstance(name, str):
            raise ConfigError("unknown option", field=f"{prefix}{name}", remedy="Write the name of an option")
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}={json.dumps(value)}"
