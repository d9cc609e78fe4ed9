"""What a round would do: which stages are cached, which would run, and how far a killed one had come."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.config import RoundConfig
from ospo_core.config.sections import Section
from ospo_core.errors import DamagedArtifactError
from ospo_core.rounds.attempts import recorded_redo, with_redo
from ospo_core.rounds.records import round_id
from ospo_core.schema import StageName
from ospo_core.stages import STAGES
from ospo_core.stages.base import Stage, StageContext
from ospo_core.stages.fingerprint import identify
from ospo_core.stages.model_ref import ModelRef
from ospo_core.stages.resources import shared_resources
from ospo_core.stages.runner import stage_manifest

Status = Literal["cached", "run", "waits", "damaged"]


class StagePlan(Section):
    """What would become of one stage.

    Args:
        stage: which.
        status: `cached`; `run`; `waits` for a stage before it, so that its fingerprint is not known yet; `damaged`.
        fingerprint: identity, empty where it is not known yet.
        shards_done: units that an interrupted run has left behind.
        rows: rows of a cached stage.
        note: why it is damaged, or that it was asked to be refreshed.
    """

    stage: StageName
    status: Status
    fingerprint: str = ""
    shards_done: int = 0
    rows: int = 0
    note: str = ""


def plan_round(
    config: RoundConfig, storage: Storage, model: ModelRef, refresh: Collection[StageName] = ()
) -> tuple[list[StagePlan], dict[StageName, Manifest]]:
    """Return the plan of a round and the manifests of its cached stages; nothing is computed, no shard is read.

    Where a stage was done over, the attempt that the round's record names counts.
    """
    identity = round_id(config, model)
    plans: list[StagePlan] = []
    manifests: dict[StageName, Manifest] = {}
    for name, stage in STAGES.items():
        if any(needed not in manifests for needed in stage.upstream):
            plans.append(StagePlan(stage=name, status="waits"))
            continue
        ctx = StageContext(config, storage, model, manifests, shared_resources())
        plan, manifest = _plan_stage(with_redo(ctx, recorded_redo(ctx, stage, identity)), stage, name in refresh)
        plans.append(plan)
        if manifest is not None:
            manifests[name] = manifest
    return plans, manifests


def report_key(manifests: Mapping[StageName, Manifest]) -> str:
    """Return where the report of a round lies: it is named after the last stage that is done."""
    last = manifests[[name for name in StageName if name in manifests][-1]]
    return f"reports/{last.stage}-{last.fingerprint[:16]}.html"


def _plan_stage(ctx: StageContext, stage: Stage, refresh: bool) -> tuple[StagePlan, Manifest | None]:
    """Look one stage up; to be refreshed, it keeps its manifest for what comes after, which is likely unchanged."""
    identity = identify(ctx, stage)
    try:
        manifest = stage_manifest(ctx, stage, verify=False)
    except DamagedArtifactError as error:
        return StagePlan(stage=stage.name, status="damaged", fingerprint=identity.fingerprint, note=str(error)), None
    if manifest is not None:
        plan = StagePlan(
            stage=stage.name,
            status="run" if refresh else "cached",
            fingerprint=identity.fingerprint,
            rows=manifest.rows,
            note="to be refreshed" if refresh else _attempt(ctx),
        )
        return plan, manifest
    entries = [key for key in ctx.storage.list(identity.prefix) if key.endswith(".json")]
    return StagePlan(stage=stage.name, status="run", fingerprint=identity.fingerprint, shards_done=len(entries)), None


def _attempt(ctx: StageContext) -> str:
    """Say that a result is not the ordinary one."""
    if ctx.redo is None:
        return ""
    return f"done over, attempt {ctx.redo.attempt}{f' where {ctx.redo.where}' if ctx.is_partial else ''}"
