"""Rounds in sequence: several in one run, or one per night, each starting from the model before it."""

from __future__ import annotations

from prefect import flow
from prefect.runtime import flow_run

from flows.round import RoundResult, self_improvement_round
from ospo_core.artifacts.ids import derive_seed
from ospo_core.config import RoundConfig
from ospo_core.schema import StageName
from ospo_core.stages.model_ref import ModelRef
from tasks.prefect_ui import tag_run
from tasks.round_tasks import nightly_start


@flow(flow_run_name="{config.name}, {rounds} rounds", persist_result=False)
def self_improve(config: RoundConfig, rounds: int = 2, refresh: list[StageName] | None = None) -> list[RoundResult]:
    """Run `rounds` rounds, at least 1; round r has seed `config.seed + r`, so that its prompts are new.

    A round that waits for the answers of people is the last one; the same call goes on once they are there.

    Every round is cached like a single one, so a repeated or restarted call resumes where it stopped.

    Args:
        config: configuration of the first round; the others differ in seed and starting model.
        refresh: stages to recompute in every round.
    """
    tag_run("ospo", config.name, "improve")
    results: list[RoundResult] = []
    start: ModelRef | None = None
    for number in range(rounds):
        seeded = config.model_copy(update={"seed": config.seed + number})
        result = self_improvement_round(seeded, refresh=refresh, start=start)
        results.append(result)
        if result.waiting:
            break
        start = result.next_model
    return results


@flow(flow_run_name="{config.name}, nightly", persist_result=False)
def nightly_round(config: RoundConfig) -> RoundResult:
    """Run one round from the model that was promoted last, with a seed of its own.

    With the same seed and model every night, all stages after the first night would be cached. Seed and model belong to
    the flow run, so that a retry uses the same ones.

    Args:
        config: of the round; its seed is mixed into that of the run, and its model is used until one is promoted.
    """
    run = str(flow_run.id)
    seeded = config.model_copy(update={"seed": derive_seed(config.seed, "nightly", run)})
    return self_improvement_round(seeded, start=nightly_start(config, run))
