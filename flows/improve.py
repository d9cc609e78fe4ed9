"""Several rounds, each from the model that the one before has left."""

from __future__ import annotations

from prefect import flow

from flows.round import RoundResult, self_improvement_round
from ospo_core.config import RoundConfig
from ospo_core.schema import StageName
from ospo_core.stages.model_ref import ModelRef
from tasks.prefect_ui import tag_run


@flow(flow_run_name="{config.name}, {rounds} rounds", persist_result=False)
def self_improve(config: RoundConfig, rounds: int = 2, refresh: list[StageName] | None = None) -> list[RoundResult]:
    """Run `rounds` rounds; round r has seed `config.seed + r`, so that its prompts are fresh.

    Every round is cached like a single one, so that a repeated or restarted call goes on where it ended.

    Args:
        config: configuration of the first round; the others differ in seed and starting model.
        rounds: how many, at least 1.
        refresh: stages to compute anew in every round.
    """
    tag_run("ospo", config.name, "improve")
    results: list[RoundResult] = []
    start: ModelRef | None = None
    for number in range(rounds):
        seeded = config.model_copy(update={"seed": config.seed + number})
        result = self_improvement_round(seeded, refresh=refresh, start=start)
        results.append(result)
        start = result.next_model
    return results
