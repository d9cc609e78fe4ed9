"""What crosses the border between tasks: a stage with its configuration and the manifests it reads. Small and JSON."""

from __future__ import annotations

from typing import TypeVar, cast

from prefect.utilities.annotations import quote

from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.config import RoundConfig
from ospo_core.config.sections import Section
from ospo_core.rounds.attempts import with_redo
from ospo_core.schema import StageName
from ospo_core.stages import MODEL_EVALUATION, STAGES, Stage, StageContext
from ospo_core.stages.model_ref import ModelRef
from ospo_core.stages.redo import Redo
from ospo_core.stages.resources import shared_resources
from tasks.credentials import use_credentials

_Argument = TypeVar("_Argument")


class StageJob(Section):
    """One stage of one round.

    Args:
        config: the round's configuration.
        stage: which stage.
        model: the model that the round starts from.
        upstream: manifests of the stages before it.
        alone: evaluation only: of the starting model by itself, outside a round.
        round: id of the round in whose record the result is noted; empty is none.
        redo: which attempt at the stage; None is the ordinary one.
    """

    config: RoundConfig
    stage: StageName
    model: ModelRef
    upstream: dict[StageName, Manifest]
    alone: bool = False
    round: str = ""
    redo: Redo | None = None

    @property
    def elsewhere(self) -> str | None:
        """The deployment that does this job in place of this process; None for every stage but the training."""
        return self.config.execution.training_deployment if self.stage is StageName.TRAINING else None

    def context(self) -> StageContext:
        """Return the stage's context in this process, for this attempt."""
        return with_redo(self.ordinary_context(), self.redo)

    def ordinary_context(self) -> StageContext:
        """Return the context with the round's own configuration, whichever attempt this is."""
        return StageContext(self.config, storage_of(self.config), self.model, self.upstream, shared_resources())

    def implementation(self) -> Stage:
        """Return the stage itself."""
        return MODEL_EVALUATION if self.alone else STAGES[self.stage]


def storage_of(config: RoundConfig) -> Storage:
    """Return the artifact storage of a configuration, with the credentials of its block in this process if it has one.

    Raises:
        ConfigError: the block cannot be used.
    """
    if config.storage.credentials_block is not None:
        use_credentials(config.storage.credentials_block)
    return Storage(config.storage.root, config.storage.endpoint_url)


def untouched(argument: _Argument) -> _Argument:
    """Hand an argument to a task as it is.

    Prefect would look through it for states and futures; with a manifest of thousands of shards that takes a second a
    task run.
    """
    return cast(_Argument, quote(argument))
