"""A recorded round to look at: small tables of all stages in several shards, with pictures, made by hand."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ospo_core.artifacts.checksummed_json import dump_checksummed
from ospo_core.artifacts.manifest import Manifest, prefix_of, publish_manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.tables import write_shard
from ospo_core.config import RoundConfig
from ospo_core.rounds.records import RoundRecord
from ospo_core.schema import CHILD, PARENT, StageName, table_from_rows
from ospo_core.stages.attempts import StageRecord, record_stage
from ospo_core.stages.model_ref import ModelRef
from tests.support.synthetic_round import evaluation_manifest, evaluation_rows, metrics_rows, pair_row

Row = dict[str, Any]

ROUND_ID = "0123456789ab"
PROMPTS, SHARD, UNPAIRED = 60, 20, 9
"""Number of prompts, prompts in a shard, and which prompt of ten gives no pair."""
HELD_OUT = 30
HOSTILE = "</title><script>alert(1)</script> & 'quoted'"


@dataclass(frozen=True)
class BrowsedRound:
    """The storage, the manifests, and the rows of the table `pairs`."""

    storage: Storage
    manifests: dict[StageName, Manifest]
    pairs: list[Row]

    @property
    def evaluation(self) -> str:
        return self.manifests[StageName.EVALUATION].fingerprint


def browsed_round(storage: Storage, swapped: bool = False, shard: int = SHARD) -> BrowsedRound:
    """Publish the round, `shard` prompts to a shard; `swapped` exchanges the pictures of parent and child."""
    rng = random.Random(11)
    rows = [pair_row(rng, index) for index in range(PROMPTS)]
    rows[3] |= {"prompt": HOSTILE, "negative_prompt": HOSTILE.replace("1", "2")}
    paired = [row for index, row in enumerate(rows) if index % 10 != UNPAIRED]
    tables: dict[StageName, list[list[Row]]] = {
        StageName.PROMPTS: _shards([[_prompt(row)] for row in rows], shard),
        StageName.PERTURBATIONS: _shards([[_perturbation(row)] for row in rows], shard),
        StageName.QUESTIONS: _shards([_questions(row) for row in rows], shard),
        StageName.IMAGES: _shards([_images(row) for row in rows], shard),
        StageName.SCORES: _shards([_scores(row, row in paired) for row in rows], shard),
        StageName.PAIRS: _shards([[row] if row in paired else [] for row in rows], shard),
        StageName.TRAINING: [metrics_rows(rng, 12)],
        StageName.EVALUATION: _evaluation(swapped),
    }
    extras: dict[StageName, Row] = {
        StageName.PROMPTS: {"drops": {"duplicate": 4}, "extra": {"raw_answers": {"duplicate": HOSTILE}}},
        StageName.PAIRS: {"drops": {"no_chosen_candidate": PROMPTS - len(paired)}},
        StageName.TRAINING: {"extra": {"model_digest": "c" * 64, "parent_digest": "a" * 64}},
        StageName.EVALUATION: {"extra": evaluation_manifest(storage, random.Random(4), HELD_OUT).extra},
    }
    manifests = {stage: _published(storage, stage, shards, extras.get(stage, {})) for stage, shards in tables.items()}
    config = RoundConfig(name="shapes", seed=3).model_dump(mode="json")
    record = RoundRecord(id=ROUND_ID, kind="round", config=config, model=ModelRef(digest="a" * 64, source="somewhere"))
    storage.create(f"rounds/{ROUND_ID}/round.json", dump_checksummed(record))
    for stage, manifest in manifests.items():
        stage_record = StageRecord(stage=stage, fingerprint=manifest.fingerprint, base=manifest.fingerprint)
        record_stage(storage, ROUND_ID, stage_record)
    return BrowsedRound(storage, manifests, paired)


def _shards(items: Sequence[list[Row]], size: int) -> list[list[Row]]:
    """Rows of items, cut into shards of `size` items."""
    cut = [items[start : start + size] for start in range(0, len(items), size)]
    return [[row for rows in part for row in rows] for part in cut]


def _published(storage: Storage, stage: StageName, shards: list[list[Row]], more: Row) -> Manifest:
    fingerprint = f"{list(StageName).index(stage) + 1:064x}"
    drops = more.get("drops", {})
    entries = tuple(
        write_shard(
            storage,
            f"{prefix_of(stage, fingerprint)}/part-{number:05d}.parquet",
            table_from_rows("metrics" if stage is StageName.TRAINING else stage.value, rows),
            drops=drops if stage is StageName.PAIRS else {},
        )
        for number, rows in enumerate(shards)
    )
    total = sum(entry.rows for entry in entries)
    return publish_manifest(
        storage,
        Manifest(stage=stage, fingerprint=fingerprint, version=1, shards=entries, rows=total, items_in=total, **more),
    )


def _prompt(row: Row) -> Row:
    names = ("item_id", "category", "sub_category", "prompt")
    return {**{name: row[name] for name in names}, "concepts": ["circle"], "relations": [["a", "above", "b"]]}


def _perturbation(row: Row) -> Row:
    names = ("item_id", "category", "sub_category", "prompt", "negative_prompt")
    dense = {"dense_prompt": f"dense {row['prompt']}", "dense_negative_prompt": f"dense {row['negative_prompt']}"}
    return {**{name: row[name] for name in names}, "variant": 0, "kind": row["negative_kind"], "seed": 5, **dense}


def _questions(row: Row) -> list[Row]:
    asked = [one["question"] for one in row["chosen_answers"]]
    return [{"item_id": row["item_id"], "of": of, "prompt": row["prompt"], "questions": asked} for of in ("base", "0")]


def _images(row: Row) -> list[Row]:
    common = {"item_id": row["item_id"], "variant": 0, "dense_prompt": "dense", "seed": 5, "tokens": [1, 2]}
    sides = {"base": row["chosen_image"], "negative": row["rejected_image"]}
    return [{**common, "side": side, "image": image, "mean_logprob": -2.0} for side, image in sides.items()]


def _scores(row: Row, paired: bool) -> list[Row]:
    good, bad = row["chosen_answers"], row["rejected_answers"]
    sides = {"base": (good if paired else bad, 0.9 if paired else -0.5), "negative": (bad, -0.5)}
    common = {"item_id": row["item_id"], "variant": 0, "negative_answers": [], "logprob_base": -2.0}
    return [
        {**common, "side": side, "answers": answers, "score": score, "logprob_negatives": [-3.0]}
        for side, (answers, score) in sides.items()
    ]


def _evaluation(swapped: bool) -> list[list[Row]]:
    """One shard of the parent and one of the child; the rows of the two differ in their pictures and answers."""
    rng = random.Random(4)
    drawn = [evaluation_rows(rng, label, HELD_OUT, accuracy) for label, accuracy in ((PARENT, 0.4), (CHILD, 0.62))]
    if swapped:
        drawn.reverse()
    return [[{**row, "model": label} for row in rows] for label, rows in zip((PARENT, CHILD), drawn, strict=True)]
