"""Evaluation of one model alone."""

from __future__ import annotations

from prefect import flow

from flows.steps import LOCAL, run_step
from ospo_core.artifacts.manifest import Manifest
from ospo_core.config import RoundConfig
from ospo_core.schema import StageName
from ospo_core.stages.attempts import Attempt
from ospo_core.stages.model_ref import ModelRef
from tasks.round_tasks import open_round


@flow(flow_run_name="{config.name}: {config.model.path}", task_runner=LOCAL, persist_result=False)
def evaluate(config: RoundConfig, refresh: bool = False, start: ModelRef | None = None) -> Manifest:
    """Evaluate a model on the held-out prompts; the accuracy is in `extra`.

    Args:
        config: only `model` and `evaluation` matter.
        refresh: evaluate again although the result is cached.
        start: the model; by default the one that `config.model.path` names.
    """
    round = open_round(config, start, kind="evaluation")
    try:
        manifest, _ = run_step(round, StageName.EVALUATION, {}, Attempt() if refresh else None)
    finally:
        round.resources.release()
    return manifest
