"""Stage `prompts`: the model writes base prompts itself (method, section 1).

Units are slices of a sub-category's quota, written independently of each other; then duplicates between slices are
dropped and what they leave open is written in a further wave that knows all accepted prompts. A sub-category whose
slice spent its attempts is not asked again. At last the prompts are cut into item shards, which every later stage
follows one to one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from ospo_core.artifacts.ids import derive_seed, digest_of
from ospo_core.artifacts.manifest import ShardEntry
from ospo_core.artifacts.shards import load_shard_entry
from ospo_core.artifacts.tables import write_shard
from ospo_core.config import RoundConfig
from ospo_core.errors import ConfigError, StageError
from ospo_core.evaluation.prompts import load_evaluation_prompts
from ospo_core.prompts.families import family
from ospo_core.prompts.filters import ContaminationCheck
from ospo_core.prompts.writing import write_prompts
from ospo_core.schema import StageName, SubCategory, table_from_rows
from ospo_core.stages.base import (
    Outcome,
    ShardResult,
    ShardSpec,
    Stage,
    StageContext,
    engine_fields,
    figures,
    items_in,
    shard_name,
    total,
)
from ospo_core.stages.fingerprint import identify, unpublished
from ospo_core.stages.merging import LastMerge, Merged, accepted_shards, merge

MAX_WAVES = 5
"""Waves of writing: the first, and at most four that fill up what duplicates between slices left open."""


_LAST_MERGE = LastMerge()


class PromptsStage(Stage):
    """Writes, deduplicates and shards the base prompts."""

    name: ClassVar[StageName] = StageName.PROMPTS
    table: ClassVar[str] = "prompts"
    text_only: ClassVar[bool] = True

    def fields(self, config: RoundConfig) -> dict[str, Any]:
        """Return quotas, templates' options, engine, seed, shard size, and a digest of the prompts kept out."""
        return {
            "prompts": config.prompts.model_dump(mode="json", exclude={"contamination_lists", "on_unmet_quota"}),
            "contamination": digest_of(kept_out(config)),
            "engine": engine_fields(config.engine),
            "seed": config.seed,
            "shard_size": config.storage.shard_size,
        }

    def shards(self, ctx: StageContext, done: Sequence[ShardEntry]) -> list[ShardSpec]:
        """Return slices of all quotas first, then slices of what is still missing."""
        quotas = _quotas(ctx.config)
        waves = len({entry.extra["wave"] for entry in done})
        if waves >= MAX_WAVES:
            return []
        wanted = quotas
        if done:
            merged = _merged(ctx, self, done)
            wanted = {name: n for name, n in merged.missing(quotas).items() if name not in merged.spent}
        return _slices(wanted, ctx.config.storage.shard_size, waves)

    def run_shard(self, ctx: StageContext, spec: ShardSpec) -> ShardResult:
        """Write one slice; a later wave knows every prompt that the earlier waves gave."""
        sub_category, wave, quota = (spec.params[key] for key in ("sub_category", "wave", "quota"))
        earlier = _merged_before(ctx, self, int(wave)) if wave else None
        written = write_prompts(
            ctx.text_engine(),
            family(ctx.config.model.family),
            SubCategory(str(sub_category)),
            int(quota),
            ctx.config.prompts,
            derive_seed(ctx.config.seed, "prompts", str(sub_category), int(wave), spec.index),
            contamination_check(ctx.config),
            earlier.texts if earlier is not None else None,
        )
        return ShardResult(
            table=table_from_rows("prompts", written.rows),
            items_in=written.calls,
            drops=written.drops,
            counts={"calls": written.calls, "tokens": written.tokens},
            extra={"wave": wave, "sub_category": sub_category, "short": written.missing},
        )

    def finalise(self, ctx: StageContext, done: Sequence[ShardEntry]) -> Outcome:
        """Cut the accepted prompts into item shards.

        Raises:
            StageError: there are no prompts, or a quota is unmet and `prompts.on_unmet_quota` is `fail`.
        """
        merged = _merged(ctx, self, done)
        quotas, prefix = _quotas(ctx.config), identify(ctx, self).prefix
        missing = merged.missing(quotas)
        _refuse_shortage(merged, missing, quotas, ctx.config.prompts.on_unmet_quota)
        tables = accepted_shards(ctx.storage, unpublished(ctx, self, done), merged, ctx.config.storage.shard_size)
        shards = tuple(
            write_shard(ctx.storage, f"{prefix}/{shard_name(number)}.parquet", table)
            for number, table in enumerate(tables)
        )
        _LAST_MERGE.forget()
        return Outcome(
            shards=shards,
            items_in=items_in(done),
            drops=total([*(entry.drops for entry in done), merged.drops]),
            counts=figures(done),
            extra={"unmet_quotas": {name.value: count for name, count in missing.items()}},
        )


def contamination_check(config: RoundConfig) -> ContaminationCheck:
    """Return the check of written prompts against those kept out."""
    return ContaminationCheck(kept_out(config))


def kept_out(config: RoundConfig) -> list[str]:
    """Return all prompts of the round's own evaluation, used or not, and those of `prompts.contamination_lists`.

    Raises:
        ConfigError: the evaluation's prompts or a list cannot be read.
    """
    held_out = load_evaluation_prompts(config.evaluation.model_copy(update={"limit": sys.maxsize}))
    lines = (line.strip() for name in _lists(config) for line in _list_bytes(name).decode("utf-8").splitlines())
    return sorted({prompt.prompt for prompt in held_out} | {line for line in lines if line})


def _lists(config: RoundConfig) -> tuple[str, ...]:
    return config.prompts.contamination_lists


def _list_bytes(name: str) -> bytes:
    try:
        return Path(name).expanduser().read_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {error.strerror}",
            field="prompts.contamination_lists",
            value=name,
            remedy="Give text files with one evaluation prompt a line",
        ) from error


def _quotas(config: RoundConfig) -> dict[SubCategory, int]:
    """Return the quotas above zero, in the order of the categories.

    Raises:
        ConfigError: there are none.
    """
    quotas = {name: config.prompts.quotas.get(name, 0) for name in SubCategory}
    wanted = {name: quota for name, quota in quotas.items() if quota}
    if not wanted:
        raise ConfigError(
            "zero prompts are wanted", field="prompts.quotas", value={}, remedy="Give a quota to a sub-category"
        )
    return wanted


def _slices(wanted: dict[SubCategory, int], size: int, wave: int) -> list[ShardSpec]:
    """Cut quotas into slices of at most `size` prompts."""
    specs = []
    for name, quota in wanted.items():
        for index, start in enumerate(range(0, quota, size)):
            params: dict[str, str | int] = {
                "sub_category": name.value,
                "wave": wave,
                "quota": min(size, quota - start),
            }
            specs.append(ShardSpec(name=f"raw-{wave}-{name.value}-{index:05d}", index=index, params=params))
    return specs


def _merged(ctx: StageContext, stage: PromptsStage, done: Sequence[ShardEntry]) -> Merged:
    """Return these slices put together, from memory where the last merge was theirs."""
    written, waves = unpublished(ctx, stage, done), len({entry.extra["wave"] for entry in done})
    place = ctx.storage.uri(written.prefix)
    last = _LAST_MERGE.get(place, waves)
    if last is not None and last.slices == tuple(entry.sha256 for entry in done):
        return last
    similarity = ctx.config.prompts.near_duplicate_similarity
    return _LAST_MERGE.keep(place, waves, merge(ctx.storage, written, _quotas(ctx.config), similarity))


def _merged_before(ctx: StageContext, stage: PromptsStage, wave: int) -> Merged:
    """Return what the waves before `wave` gave, from memory or read from storage: it was published once and for all."""
    prefix = identify(ctx, stage).prefix
    last = _LAST_MERGE.get(ctx.storage.uri(prefix), wave)
    if last is not None:
        return last
    done: list[ShardEntry] = []
    for _ in range(wave):
        found = [load_shard_entry(ctx.storage, prefix, spec.name) for spec in stage.shards(ctx, done)]
        done += [entry for entry in found if entry is not None]
    return _merged(ctx, stage, done)


def _refuse_shortage(
    merged: Merged, missing: dict[SubCategory, int], quotas: dict[SubCategory, int], on_unmet_quota: str
) -> None:
    if not merged.counts.total():
        raise StageError(
            "the model wrote no usable prompt",
            field="stage prompts",
            value=dict(sorted(merged.drops.items())) or 0,
            remedy="Look at the drops, raise prompts.attempts_per_prompt, or use another model",
        )
    if missing and on_unmet_quota == "fail":
        short = ", ".join(f"{name.value} {quotas[name] - count} of {quotas[name]}" for name, count in missing.items())
        raise StageError(
            "quotas are unmet",
            field="stage prompts",
            value=short,
            remedy="Raise prompts.attempts_per_prompt, lower prompts.quotas, or set prompts.on_unmet_quota=warn",
        )
