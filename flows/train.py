"""The training of a round as a separate flow for a GPU work pool, started by a round or by hand."""

from __future__ import annotations

from prefect import flow

from flows.steps import LOCAL, run_step
from ospo_core.artifacts.manifest import Manifest
from ospo_core.config import RoundConfig
from ospo_core.schema import StageName
from ospo_core.stages.attempts import Attempt
from ospo_core.stages.model_ref import ModelRef
from tasks.remote_training import find_pairs
from tasks.round_tasks import open_round
from tasks.task_options import opaque


@flow(flow_run_name="{config.name}, seed {config.seed}: training", task_runner=LOCAL, persist_result=False)
def train(
    config: RoundConfig, refresh: bool = False, start: ModelRef | None = None, overrides: list[str] | None = None
) -> Manifest:
    """Train on the pairs that a round with this configuration has made.

    Args:
        config: configuration of the round; its pairs must be in `config.storage`.
        refresh: train again although the result is cached.
        start: the model to train; by default the one that `config.model.path` names.
        overrides: with `refresh`, `section.option=value`, valid for the training only.

    Raises:
        StageError: the pairs do not exist yet.
        TrainingError: training failed, collapsed or was stopped.
    """
    here = config.execution.model_copy(update={"training_deployment": None})
    round = open_round(config.model_copy(update={"execution": here}), start)
    pairs = find_pairs(opaque(round))
    try:
        request = Attempt(overrides=tuple(overrides or ())) if refresh else None
        manifest, _ = run_step(round, StageName.TRAINING, pairs, request)
    finally:
        round.resources.release()
    return manifest
