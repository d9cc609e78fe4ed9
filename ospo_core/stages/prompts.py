"""Stage `prompts`: the model writes base prompts itself (docs/method.md, section 1).

A shard is a slice of a sub-category's quota, written independently of the others. Then duplicates between slices are
dropped, and what is then missing is written in further waves of slices, which know all prompts accepted so far. A
sub-category with a slice that used up its attempts is skipped in later waves. Finally the accepted prompts are cut into
item shards, which every later stage follows one to one.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

from ospo_core.artifacts.ids import derive_seed, digest_of
from ospo_core.artifacts.manifest import Manifest, ShardEntry
from ospo_core.artifacts.tables import write_shard
from ospo_core.config import RoundConfig
from ospo_core.config.text_files import lines_of, local_path, read_text
from ospo_core.errors import ConfigError, StageError
from ospo_core.evaluation.prompts import load_evaluation_prompts
from ospo_core.prompts.failures import describe_drops
from ospo_core.prompts.families import family
from ospo_core.prompts.filters import ContaminationCheck
from ospo_core.prompts.writing import write_prompts
from ospo_core.schema import StageName, SubCategory, table_from_rows
from ospo_core.stages.base import Phase, ShardResult, ShardSpec, Stage, options_of, shard_name
from ospo_core.stages.merging import Merged, accepted_shards, merge
from ospo_core.stages.run import StageRun
from ospo_core.stages.text import RAW_ANSWERS, raw_answers, text_extra, text_fields

MAX_WAVES = 5
"""Waves of writing: the first, and at most four that fill the gaps left by duplicates between slices."""

_OF_A_SLICE = frozenset({"wave", "sub_category", "short"})
"""Facts of a slice that say nothing about the whole stage."""

_last_merge: dict[tuple[str, int], Merged] = {}
"""The last merge of this process, by address of the stage and number of waves; all slices of a later wave use it."""


class PromptsStage(Stage):
    """Writes, deduplicates and shards the base prompts."""

    name: ClassVar[StageName] = StageName.PROMPTS
    version: ClassVar[int] = 1
    table: ClassVar[str] = "prompts"
    phase: ClassVar[Phase] = Phase.TEXT

    def fields(self, config: RoundConfig) -> dict[str, Any]:
        """Return quotas, sampling options, engine, seed, shard size, and a digest of the excluded prompts."""
        return {
            "prompts": options_of(config.prompts, {"contamination_lists", "on_unmet_quota"}),
            "contamination": digest_of(excluded_prompts(config)),
            **text_fields(config),
            "shard_size": config.storage.shard_size,
        }

    def shards(self, run: StageRun) -> list[ShardSpec]:
        """Return slices of all quotas."""
        return _slices(_quotas(run.config), run.config.storage.shard_size, wave=0)

    def more_shards(self, run: StageRun, done: Sequence[ShardEntry]) -> list[ShardSpec]:
        """Return slices of what is still missing, for at most `MAX_WAVES` waves in all."""
        waves = _waves(done)
        if waves >= MAX_WAVES:
            return []
        merged = _merged(run, done)
        missing = merged.missing(_quotas(run.config))
        wanted = {name: count for name, count in missing.items() if name not in merged.spent}
        return _slices(wanted, run.config.storage.shard_size, waves)

    def run_shard(self, run: StageRun, spec: ShardSpec) -> ShardResult:
        """Write one slice; a later wave knows every prompt of the earlier waves."""
        sub_category, wave, quota = (spec.params[key] for key in ("sub_category", "wave", "quota"))
        earlier = _merged_before(run, self, int(wave)) if wave else None
        engine = run.text_engine()
        written = write_prompts(
            engine,
            family(run.config.model.family),
            SubCategory(str(sub_category)),
            int(quota),
            run.config.prompts,
            derive_seed(run.config.seed, "prompts", str(sub_category), int(wave), spec.index),
            ContaminationCheck(excluded_prompts(run.config)),
            earlier.texts if earlier is not None else None,
            run.config.engine.min_parsed,
        )
        return ShardResult(
            table=table_from_rows("prompts", written.rows),
            items_in=written.calls,
            drops=written.drops,
            counts={"calls": written.calls, "tokens": written.tokens},
            extra={
                "wave": wave,
                "sub_category": sub_category,
                "short": written.missing,
                **text_extra(engine, written.raw),
            },
        )

    def finish(self, run: StageRun, manifest: Manifest) -> Manifest:
        """Cut the accepted prompts into item shards.

        Raises:
            StageError: there are no prompts, or a quota is unmet and `prompts.on_unmet_quota` is `fail`.
        """
        merged, quotas = _merged(run, manifest.shards), _quotas(run.config)
        missing, raw = merged.missing(quotas), raw_answers(manifest)
        drops = Counter(manifest.drops) + merged.drops
        _check_quotas(merged, missing, quotas, run.config.prompts.on_unmet_quota, describe_drops(drops, raw))
        tables = accepted_shards(run.storage, manifest, merged, run.config.storage.shard_size)
        shards = tuple(
            write_shard(run.storage, f"{run.prefix}/{shard_name(number)}.parquet", table)
            for number, table in enumerate(tables)
        )
        _last_merge.clear()
        engine_facts = {name: fact for name, fact in manifest.extra.items() if name not in _OF_A_SLICE}
        unmet = {name.value: count for name, count in missing.items()}
        return manifest.model_copy(
            update={
                "shards": shards,
                "drops": dict(sorted(drops.items())),
                "extra": {**engine_facts, "unmet_quotas": unmet, RAW_ANSWERS: raw},
            }
        )


STAGE = PromptsStage()


def excluded_prompts(config: RoundConfig) -> list[str]:
    """Return all prompts of the round's own evaluation, used or not, and those of `prompts.contamination_lists`.

    Raises:
        ConfigError: the evaluation's prompts or a list cannot be read.
    """
    held_out = load_evaluation_prompts(config.evaluation.model_copy(update={"limit": sys.maxsize}))
    excluded = {prompt.prompt for prompt in held_out}
    for name in config.prompts.contamination_lists:
        field, remedy = "prompts.contamination_lists", "Give text files with one evaluation prompt per line"
        lines = lines_of(read_text(local_path(name, field), field, remedy))
        excluded |= {line.strip() for line in lines}
    return sorted(excluded - {""})


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
            label, part = f"raw-{wave}-{name.value}-{index:05d}", min(size, quota - start)
            params: dict[str, str | int] = {"sub_category": name.value, "wave": wave, "quota": part}
            specs.append(ShardSpec(name=label, index=index, params=params))
    return specs


def _waves(done: Sequence[ShardEntry]) -> int:
    """Return the number of waves that these slices belong to."""
    return len({entry.extra["wave"] for entry in done})


def _merged(run: StageRun, done: Sequence[ShardEntry]) -> Merged:
    """Return these slices merged, from memory if the last merge was theirs."""
    written, waves = run.manifest_of(done), _waves(done)
    place = run.storage.uri(written.prefix)
    last = _last_merge.get((place, waves))
    if last is not None and last.slices == tuple(entry.sha256 for entry in done):
        return last
    merged = merge(run.storage, written, _quotas(run.config), run.config.prompts.near_duplicate_similarity)
    _last_merge.clear()
    _last_merge[place, waves] = merged
    return merged


def _merged_before(run: StageRun, stage: PromptsStage, wave: int) -> Merged:
    """Return the merge of the waves before `wave`, from memory or from storage, where its slices are published."""
    last = _last_merge.get((run.storage.uri(run.prefix), wave))
    if last is not None:
        return last
    done: list[ShardEntry] = []
    for number in range(wave):
        specs = stage.more_shards(run, done) if number else stage.shards(run)
        done += [entry for entry in map(run.find_shard, specs) if entry is not None]
    return _merged(run, done)


def _check_quotas(
    merged: Merged, missing: dict[SubCategory, int], quotas: dict[SubCategory, int], on_unmet_quota: str, drops: str
) -> None:
    """Raise StageError if there are no prompts, or too few where that is an error; `drops` describes the drops."""
    if not merged.counts.total():
        raise StageError(
            f"the model wrote no usable prompt; {drops}",
            field="stage prompts",
            value=0,
            remedy="Raise prompts.attempts_per_prompt, or use another model",
        )
    if missing and on_unmet_quota == "fail":
        short = ", ".join(f"{name.value} {quotas[name] - count} of {quotas[name]}" for name, count in missing.items())
        raise StageError(
            f"quotas are unmet; {drops}",
            field="stage prompts",
            value=short,
            remedy="Raise prompts.attempts_per_prompt, lower prompts.quotas, or set prompts.on_unmet_quota=warn",
        )
