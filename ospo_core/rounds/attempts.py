"""Which attempt at a stage counts in a round, and what a further one would be."""

from __future__ import annotations

from dataclasses import replace

from ospo_core.artifacts.manifest import manifest_key
from ospo_core.artifacts.shards import load_shard_entry
from ospo_core.config import RoundConfig, change_config
from ospo_core.errors import ConfigError, DamagedArtifactError, StageError
from ospo_core.rounds.records import StageRecord, record_stage, stage_record
from ospo_core.stages import STAGES
from ospo_core.stages.base import Stage, StageContext
from ospo_core.stages.fingerprint import identify
from ospo_core.stages.redo import Redo, RedoRequest


def with_redo(ctx: StageContext, redo: Redo | None) -> StageContext:
    """Return the context of an attempt; without a redo, of the ordinary one.

    Args:
        ctx: context with the round's own configuration.
        redo: the attempt.
    """
    if redo is None:
        return ctx
    return replace(ctx, config=change_config(ctx.config, redo.overrides), redo=redo)


def recorded_redo(ctx: StageContext, stage: Stage, identity: str) -> Redo | None:
    """Return the attempt that counts in a round, None for the ordinary one.

    A redo counts as long as the ordinary result would be the same as when it was made: other inputs end it.

    Args:
        ctx: context with the round's own configuration.
        stage: the stage.
        identity: id of the round; empty where it has no record.
    """
    record = stage_record(ctx.storage, identity, stage.name) if identity else None
    if record is None or record.base != identify(ctx, stage).fingerprint:
        return None
    return record.redo


def record_result(ctx: StageContext, stage: Stage, identity: str, redo: Redo | None) -> None:
    """Note in the round's record that this attempt counts now.

    Args:
        ctx: context with the round's own configuration.
        stage: the stage.
        identity: id of the round; empty where it has no record.
        redo: the attempt.
    """
    if identity:
        base, made = (identify(one, stage).fingerprint for one in (ctx, with_redo(ctx, redo)))
        record_stage(ctx.storage, identity, StageRecord(stage=stage.name, fingerprint=made, base=base, redo=redo))


def next_redo(ctx: StageContext, stage: Stage, last: Redo | None, request: RedoRequest) -> Redo:
    """Return the next attempt at a stage: one that was killed is gone on with, a published one is not touched.

    Args:
        ctx: context with the round's own configuration.
        stage: the stage.
        last: the attempt that counts now.
        request: what is to be done over.

    Raises:
        ConfigError: the request does not fit the stage.
        StageError: some items are to be done over and there is no result yet.
    """
    _check_request(ctx.config, stage, request)
    of = identify(with_redo(ctx, last), stage).fingerprint if request.where else ""
    if of and not ctx.storage.exists(manifest_key(stage.name, of)):
        raise StageError(
            "is not there yet, so that some of its items cannot be done over",
            field=f"stage {stage.name}",
            remedy="Leave the condition away, or run the stage first",
        )
    number = last.attempt + 1 if last else 1
    while _is_used(with_redo(ctx, redo := Redo(attempt=number, of=of, **request.model_dump())), stage):
        number += 1
    return redo


def _is_used(ctx: StageContext, stage: Stage) -> bool:
    """Tell whether an attempt is published, or left behind with damage."""
    identity = identify(ctx, stage)
    if ctx.storage.exists(manifest_key(stage.name, identity.fingerprint)):
        return True
    entries = [key for key in ctx.storage.list(identity.prefix) if key.endswith(".json")]
    try:
        for key in entries:
            load_shard_entry(ctx.storage, identity.prefix, key.rpartition("/")[2].removesuffix(".json"))
    except DamagedArtifactError:
        return True
    return False


def _check_request(config: RoundConfig, stage: Stage, request: RedoRequest) -> None:
    """Refuse a condition where rows depend on each other, and options that also change other stages.

    Raises:
        ConfigError: either is so.
    """
    if request.where and not stage.by_item:
        able = ", ".join(one.name.value for one in STAGES.values() if one.by_item)
        raise ConfigError(
            f"stage {stage.name} cannot be done over for some items only",
            field="where",
            value=request.where,
            remedy=f"Leave it away, or choose one of: {able}",
        )
    changed = change_config(config, request.overrides)
    others = [one for one in STAGES.values() if one.name is not stage.name]
    spoilt = [one.name.value for one in others if one.fields(config) != one.fields(changed)]
    if spoilt or changed.model != config.model or changed.storage != config.storage:
        raise ConfigError(
            f"also changes what other stages make ({', '.join(spoilt) or 'all of them'})",
            field="overrides",
            value=list(request.overrides),
            remedy=f"Change options of stage {stage.name} only, or start another round with them",
        )
