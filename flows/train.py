"""The training of a round by itself: for a GPU work pool, called by rounds or by people."""

from __future__ import annotations

from prefect import flow

from flows.runners import LOCAL
from flows.steps import run_stage
from ospo_core.artifacts.manifest import Manifest
from ospo_core.config import RoundConfig
from ospo_core.schema import StageName
from ospo_core.stages.model_ref import ModelRef
from ospo_core.stages.redo import RedoRequest
from ospo_core.stages.resources import shared_resources
from tasks.jobs import StageJob
from tasks.remote_training import find_pairs
from tasks.round_tasks import open_round


@flow(flow_run_name="{config.name}, seed {config.seed}: training", task_runner=LOCAL, persist_result=False)
def train(
    config: RoundConfig, refresh: bool = False, start: ModelRef | None = None, overrides: list[str] | None = None
) -> Manifest:
    """Train on the pairs that a round with this configuration has made.

    Args:
        config: configuration of the round; its pairs are looked for in `config.storage`.
        refresh: train anew although it is cached.
        start: the model to train; by default the one that `config.model.path` names.
        overrides: with `refresh`, `section.option=value` that hold for the training only.

    Raises:
        StageError: the pairs are not there yet.
        TrainingError: training failed, collapsed or was stopped.
    """
    here = config.execution.model_copy(update={"training_deployment": None})
    config = config.model_copy(update={"execution": here})
    opened = open_round(config, start)
    pairs = find_pairs(config, opened.model)
    job = StageJob(config=config, stage=StageName.TRAINING, model=opened.model, upstream=pairs, round=opened.id)
    try:
        manifest, _ = run_stage(job, RedoRequest(overrides=tuple(overrides or ())) if refresh else None)
    finally:
        shared_resources().give_back()
    return manifest
