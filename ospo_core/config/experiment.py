"""An experiment: one profile, several arms that change a few options of it, several seeds and guidance scales.

A folder holds it: `experiment.yaml`, and beside it one file an arm. An arm's file is a fragment of a profile with a
`title`; what it leaves out is as in the experiment's `common` section, and else as in the profile.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from ospo_core.config.problems import config_error
from ospo_core.config.profile import RoundConfig, load_profile, profiles_dir, read_yaml
from ospo_core.config.sections import Section
from ospo_core.errors import ConfigError

EXPERIMENT_FILE = "experiment.yaml"
SEED_STEP = 1000
"""Added to the seed in every further round, so that no round of one seed is the first round of another."""

_Seeds = Annotated[tuple[int, ...], Field(min_length=1, description="Seeds of whole rounds: prompts to training.")]
_Guidances = Annotated[tuple[float, ...], Field(min_length=1, description="Guidance scales of the evaluation.")]
_Rounds = Annotated[int, Field(ge=1, description="Rounds of each arm, each from the model that the last one trained.")]
_Reference = Annotated[str | None, Field(description="Arm with which the others are compared too, beside the base.")]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w-]*$")]


class Arm(Section):
    """One configuration that is compared with the others."""

    name: _Name
    title: str = Field(min_length=1, description="How the tables call it.")
    config: RoundConfig


class ExperimentConfig(Section):
    """What is compared, how often, and how it is measured."""

    name: _Name
    title: str = Field(min_length=1)
    seeds: _Seeds
    guidances: _Guidances
    rounds: _Rounds = 1
    reference: _Reference = None
    arms: tuple[Arm, ...] = Field(min_length=1)

    def arm_config(self, arm: Arm, seed: int, number: int = 0) -> RoundConfig:
        """Return the configuration of an arm's round `number` (from 0); every round has a seed of its own."""
        return arm.config.model_copy(update={"seed": seed + SEED_STEP * number})

    def label(self, arm: Arm, number: int) -> str:
        """Return the name of what round `number` (from 0) of an arm trains: the arm's, if there is one round only."""
        return arm.name if self.rounds == 1 else f"{arm.name}-round-{number + 1}"

    def titles(self) -> dict[str, str]:
        """Return how the tables call each label."""
        return {
            self.label(arm, number): arm.title if self.rounds == 1 else f"{arm.title}, round {number + 1}"
            for arm in self.arms
            for number in range(self.rounds)
        }


class _Document(Section):
    """The file `experiment.yaml` as it is written."""

    title: str
    profile: str
    seeds: _Seeds
    guidances: _Guidances
    rounds: _Rounds = 1
    reference: _Reference = None
    arms: tuple[_Name, ...] = Field(min_length=1)
    common: dict[str, Any] = Field(default_factory=dict)


def experiments_dir() -> Path:
    """Return the folder of the shipped experiments."""
    return profiles_dir().parent / "experiments"


def experiment_names() -> list[str]:
    """Return the names of the shipped experiments, sorted."""
    return sorted(path.parent.name for path in experiments_dir().glob(f"*/{EXPERIMENT_FILE}"))


def load_experiment(name_or_path: str, overrides: tuple[str, ...] = ()) -> ExperimentConfig:
    """Read an experiment: a shipped one's name, or the path of a folder with `experiment.yaml` and its arms.

    Args:
        name_or_path: see above.
        overrides: `dotted.option=value` of the profile, applied to every arm, last.

    Raises:
        ConfigError: it is missing, or some option is unknown or unusable.
    """
    folder = Path(name_or_path).expanduser() if "/" in name_or_path else experiments_dir() / name_or_path
    if not (folder / EXPERIMENT_FILE).is_file():
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
    _check_reference(document, folder / EXPERIMENT_FILE)
    arms = tuple(_load_arm(folder / f"{arm}.yaml", document, overrides) for arm in document.arms)
    _check_comparable(arms)
    return ExperimentConfig(
        name=folder.name,
        title=document.title,
        seeds=document.seeds,
        guidances=document.guidances,
        rounds=document.rounds,
        reference=document.reference,
        arms=arms,
    )


def _check_reference(document: _Document, source: Path) -> None:
    """Refuse a reference that is no arm, or of which several rounds would be meant."""
    if document.reference is not None and (document.reference not in document.arms or document.rounds > 1):
        raise ConfigError(
            "is not an arm of one round",
            field=f"{source}: reference",
            value=document.reference,
            remedy=f"Give one of {', '.join(document.arms)} with rounds: 1, or leave it away",
        )


def _check_comparable(arms: tuple[Arm, ...]) -> None:
    """Refuse arms that do not start from one model, or are not measured alike: there is one base for all."""
    first = arms[0]
    for arm in arms[1:]:
        for section in ("storage", "model", "evaluation", "promotion"):
            if getattr(arm.config, section) != getattr(first.config, section):
                raise ConfigError(
                    f"differs from that of arm {first.name!r}, so that the two cannot be compared",
                    field=f"{arm.name}.yaml: {section}",
                    remedy=f"Put it under `common` of {EXPERIMENT_FILE}",
                )


def _load_arm(path: Path, document: _Document, overrides: tuple[str, ...]) -> Arm:
    """Read an arm's file and put its options over those common to all arms, and these over the profile."""
    fragment = read_yaml(path)
    title = fragment.pop("title", None)
    if not isinstance(title, str) or not title:
        raise ConfigError("an arm needs a title", field=f"{path}: title", value=title, remedy="Say what it compares")
    chosen = [*_flat(document.common), *_flat(fragment), *overrides]
    return Arm(name=path.stem, title=title, config=load_profile(document.profile, chosen))


def _flat(options: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield nested options as `a.b.c=value`, values in JSON, which YAML can read."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}={json.dumps(value)}"
