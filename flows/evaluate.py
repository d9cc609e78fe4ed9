"""Evaluation of one model by itself."""

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
from tasks.round_tasks import open_round


@flow(flow_run_name="{config.name}: {config.model.path}", task_runner=LOCAL, persist_result=False)
def evaluate(config: RoundConfig, refresh: bool = False, start: ModelRef | None = None) -> Manifest:
    """Evaluate a model on the held-out prompts; the accuracy is in `extra`.

    Args:
        config: `model` and `evaluation` count.
        refresh: evaluate anew although it is cached.
        start: the model; by default the one that `config.model.path` names.
    """
    opened = open_round(config, start, alone=True)
    job = StageJob(
        config=config, stage=StageName.EVALUATION, model=opened.model, upstream={}, alone=True, round=opened.id
    )
    try:
        manifest, _ = run_stage(job, RedoRequest() if refresh else None)
    finally:
        shared_resources().give_back()
    return manifest
