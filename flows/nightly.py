"""A round that a schedule starts again and again: each from the model promoted last, each with prompts of its own."""

from __future__ import annotations

from prefect import flow
from prefect.runtime import flow_run

from flows.round import RoundResult, self_improvement_round
from ospo_core.artifacts.ids import derive_seed
from ospo_core.config import RoundConfig
from tasks.round_tasks import nightly_start


@flow(flow_run_name="{config.name}, nightly", persist_result=False)
def nightly_round(config: RoundConfig) -> RoundResult:
    """Run one round from the model that was promoted last, with a seed that no other run has.

    With the same seed and model every night, all stages but those of the first night would be found cached. Seed and
    model belong to the run, so that a retry goes on with the same ones.

    Args:
        config: of the round; its seed is mixed into the run's, and its model is used until one is promoted.
    """
    run = str(flow_run.id)
    seeded = config.model_copy(update={"seed": derive_seed(config.seed, "nightly", run)})
    return self_improvement_round(seeded, start=nightly_start(config, run))
