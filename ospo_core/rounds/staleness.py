"""Which results of a round no longer follow from those before them, after a stage was done over."""

from __future__ import annotations

from typing import Literal

from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.tables import read_shard
from ospo_core.config import RoundConfig
from ospo_core.config.sections import Section
from ospo_core.errors import DamagedArtifactError, StageError
from ospo_core.rounds.plan import plan_round
from ospo_core.rounds.records import RoundRecord, stage_records
from ospo_core.schema import StageName
from ospo_core.stages import STAGES
from ospo_core.stages.base import StageContext
from ospo_core.stages.redo import chosen_items

Standing = Literal["up to date", "out of date", "not done yet"]


class StageStanding(Section):
    """How one stage of a round stands."""

    stage: StageName
    standing: Standing


def standings(config: RoundConfig, storage: Storage, record: RoundRecord) -> list[StageStanding]:
    """Return how every stage of a round stands; nothing is computed, no shard is read.

    A stage is out of date where the round's record has a result of it, and that result is not what its inputs, as they
    are now, would be looked up by; all that follows from it is out of date too.
    """
    plans, manifests = plan_round(config, storage, record.model)
    done = stage_records(storage, record.id)
    found = []
    for plan in plans:
        current = plan.stage in manifests
        standing: Standing = "up to date" if current else "out of date" if plan.stage in done else "not done yet"
        found.append(StageStanding(stage=plan.stage, standing=standing))
    return found


def manifests_before(
    config: RoundConfig, storage: Storage, record: RoundRecord, stage: StageName
) -> dict[StageName, Manifest]:
    """Return the manifests of all stages before `stage`.

    Raises:
        StageError: one of them is not done.
        DamagedArtifactError: one of them is damaged.
    """
    plans, manifests = plan_round(config, storage, record.model)
    wanted = list(STAGES)[: list(STAGES).index(stage)]
    for plan in plans:
        if plan.stage in wanted and plan.stage not in manifests:
            if plan.status == "damaged":
                raise DamagedArtifactError(plan.note)
            raise StageError(
                f"stage {plan.stage} before it is not done",
                field=f"stage {stage}",
                remedy=f"Run `ospo stage {stage}` with the options of this round, or backfill {plan.stage} first",
            )
    return {name: manifests[name] for name in wanted}


def count_chosen(ctx: StageContext, where: str) -> int:
    """Return how many prompts of a round satisfy a condition.

    Args:
        ctx: a context whose upstream has the prompts.
        where: condition in SQL over the prompts table.

    Raises:
        ConfigError: it cannot be used.
        StageError: no prompt satisfies it.
    """
    prompts = ctx.upstream[StageName.PROMPTS]
    shards = (read_shard(ctx.storage, prompts, index) for index in range(len(prompts.shards)))
    count = sum(len(chosen_items(shard, where)) for shard in shards)
    if not count:
        raise StageError(
            f"none of the {prompts.rows} prompts satisfies it", field="where", value=where, remedy="Correct it"
        )
    return count
