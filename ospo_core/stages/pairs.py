"""Stage `pairs`: filtering and pairing, and object masks if training uses them (docs/method.md, section 3)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from ospo_core.artifacts.manifest import Manifest
from ospo_core.config import RoundConfig
from ospo_core.errors import StageError
from ospo_core.schema import StageName
from ospo_core.selection.pairs import build_pairs
from ospo_core.stages.base import Phase, ShardResult, ShardSpec, Stage
from ospo_core.stages.pair_quality import quality, quality_counts
from ospo_core.stages.run import StageRun

_MASK_BATCH = 16
_MASKS_VERSION = 2
"""Raised when the masks of the same pairs become others."""

_AFTER_THE_NOUN = re.compile(
    r"\s(of|with|in|on|at|by|from|for|to|over|under|above|below|behind|beside|near|between|against|around|inside|"
    r"outside|without|that|which|who|wearing|holding|made)\s.*",
    re.IGNORECASE,
)
"""Words that begin what describes a noun from behind: `a glass of water`, `a man in a red hat`."""


class PairsStage(Stage):
    """Reads `prompts` (their concepts), `perturbations`, `images` and `scores`, writes `pairs`."""

    name: ClassVar[StageName] = StageName.PAIRS
    version: ClassVar[int] = 1
    table: ClassVar[str] = "pairs"
    reads: ClassVar[tuple[StageName, ...]] = (
        StageName.PROMPTS,
        StageName.PERTURBATIONS,
        StageName.IMAGES,
        StageName.SCORES,
    )
    phase: ClassVar[Phase] = Phase.MODEL
    follows: ClassVar[StageName | None] = StageName.SCORES
    independent_items: ClassVar[bool] = True

    def fields(self, config: RoundConfig) -> dict[str, Any]:
        """Return the rules, and which object masks are wanted, if any."""
        masks = _MASKS_VERSION if _wants_masks(config) else False
        return {"selection": config.selection.model_dump(mode="json"), "masks": masks}

    def run_shard(self, run: StageRun, spec: ShardSpec) -> ShardResult:
        """Pair the images of one shard; a prompt without a single perturbation counts as dropped here."""
        prompts = run.rows(StageName.PROMPTS, spec.index)
        perturbations, images, scores = (
            run.table(name, spec.index) for name in (StageName.PERTURBATIONS, StageName.IMAGES, StageName.SCORES)
        )
        made = build_pairs(perturbations, images, scores, run.config.selection)
        table, drops = made.table, dict(made.drops)
        if len(prompts) > made.items:
            drops["no_perturbation"] = len(prompts) - made.items
        if _wants_masks(run.config) and table.num_rows:
            table = _with_masks(run, table, {row["item_id"]: row["concepts"] for row in prompts})
        counts: dict[str, int] = {}
        if run.config.model.family == "shapes":
            counts = quality_counts(prompts, images.to_pylist(), scores, table, run.config.selection)
        return ShardResult(table=table, items_in=len(prompts), drops=drops, counts=counts)

    def uses_gpu(self, config: RoundConfig) -> bool:
        """Return whether a shard occupies a GPU: only object masks need the model."""
        return _wants_masks(config) and super().uses_gpu(config)

    def finish(self, run: StageRun, manifest: Manifest) -> Manifest:
        """Put the quality of the selection into `extra`, if there is an oracle and all items were paired.

        Raises:
            StageError: no prompt gave a pair; the reasons are listed.
        """
        if not manifest.rows:
            raise StageError(
                f"all {manifest.items_in} prompts were filtered out, so there is nothing to train on",
                field="stage pairs",
                value=dict(manifest.drops),
                remedy="Lower the thresholds of selection.*, write more prompts, or look at the scores table",
            )
        measured = None if run.is_partial else quality(manifest.counts)
        return manifest.model_copy(update={"extra": {**manifest.extra, "quality": measured}})


STAGE = PairsStage()


def _wants_masks(config: RoundConfig) -> bool:
    return config.training.loss.object_weight > 0


def _with_masks(run: StageRun, pairs: pa.Table, concepts: dict[str, list[str]]) -> pa.Table:
    """Fill `chosen_mask` and `rejected_mask` `[T]` from the model's attention to the objects' nouns."""
    from ospo_core.models.attention import object_masks

    nouns = [_nouns(concepts[item]) for item in pairs["item_id"].to_pylist()]
    for side in ("chosen", "rejected"):
        tokens = np.asarray(pairs[f"{side}_tokens"].to_pylist(), dtype=np.uint16)
        masks = object_masks(run.image_model(), pairs["prompt"].to_pylist(), nouns, tokens, _MASK_BATCH)
        place = pairs.schema.get_field_index(f"{side}_mask")
        field = pairs.schema.field(place)
        pairs = pairs.set_column(place, field, pa.array([mask.tolist() for mask in masks], field.type))
    return pairs


def _nouns(concepts: Sequence[str]) -> list[str]:
    """Return the head noun of each concept, each once: `red circle` gives `circle`, `glass of water` gives `glass`.

    It is the last word before those that describe the noun from behind (docs/method.md, section 4.2).
    """
    heads = (_AFTER_THE_NOUN.sub("", concept).split() for concept in concepts)
    return list(dict.fromkeys(words[-1] for words in heads if words))
