"""A whole round made up for the report: manifests and tables of every stage, in a storage of its own."""

from __future__ import annotations

import random
import re
from base64 import b64decode
from collections.abc import Sequence
from io import BytesIO
from typing import Any

from PIL import Image, ImageDraw

from ospo_core.artifacts.manifest import Manifest, prefix_of
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.tables import write_shard
from ospo_core.config.sections import EvaluationConfig, PromotionConfig
from ospo_core.evaluation.judges import JudgedBy
from ospo_core.evaluation.promotion import evaluation_extra
from ospo_core.schema import CHILD, PARENT, StageName, SubCategory, category_of, table_from_rows

Row = dict[str, Any]
COLOURS = {"red": "#d3402f", "blue": "#2f66c9", "green": "#3c9a4e", "yellow": "#e2b93b", "purple": "#7e4aa8"}
SHAPES = ("circle", "square", "triangle")
ANSWERS = ("question", "p_yes", "p_no")
_IMAGE = re.compile(r"!\[([^\]]*)\]\(data:image/([\w+]+);base64,([^)]+)\)")


def picture(things: Sequence[tuple[str, str]], size: int = 64) -> bytes:
    """A PNG with (colour, shape) things side by side."""
    image = Image.new("RGB", (size, size), "#f4f1ea")
    draw, step = ImageDraw.Draw(image), size // 4
    for index, (colour, shape) in enumerate(things):
        x, y = (index * 2 + 1) * step // 2 + 4, step + (index % 2) * step
        box = (x, y, x + step, y + step)
        if shape == "circle":
            draw.ellipse(box, fill=COLOURS[colour])
        elif shape == "square":
            draw.rectangle(box, fill=COLOURS[colour])
        else:
            draw.polygon([(x, y + step), (x + step, y + step), (x + step // 2, y)], fill=COLOURS[colour])
    buffer = BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def publish(storage: Storage, stage: StageName, table: str, rows: Sequence[Row], **fields: Any) -> Manifest:
    """A manifest with one shard that holds `rows`."""
    fingerprint = f"{list(StageName).index(stage) + 11:064x}"
    key = f"{prefix_of(stage, fingerprint)}/part-00000.parquet"
    shards = (write_shard(storage, key, table_from_rows(table, rows)),) if rows else ()
    settings: Row = {"items_in": len(rows), "seconds": 3.5 + 20 * len(stage.value), "version": 1, **fields}
    return Manifest(
        stage=stage,
        fingerprint=fingerprint,
        shards=shards,
        rows=len(rows),
        ingredients={"stage": stage.value, "config": {"seed": 0}},
        created_at="2026-01-02T03:04:05+00:00",
        **settings,
    )


def scores_rows(rng: random.Random, count: int) -> list[Row]:
    rows = []
    for index in range(count):
        for side, mean in (("base", 0.5), ("negative", -0.3)):
            score = max(-1.0, min(1.0, rng.gauss(mean, 0.45)))
            row = {"item_id": f"{index:04d}", "variant": 0, "side": side, "answers": [], "score": score}
            rows.append({**row, "logprob_base": -2.0, "logprob_negatives": [-2.5]})
    return with_all_columns("scores", rows)


def pair_row(rng: random.Random, index: int) -> Row:
    (colour, other), shape = rng.sample(sorted(COLOURS), 2), rng.choice(SHAPES)
    sub_category = list(SubCategory)[index % len(SubCategory)]
    prompt, changed = f"a {colour} {shape} left of a yellow circle", f"a {other} {shape} left of a yellow circle"
    asked = [f"is there a {colour} {shape} ?", "is there a yellow circle ?", "are there two shapes ?"]
    chosen, rejected = [rng.uniform(0.8, 1.0) for _ in asked], [rng.uniform(0.0, 0.3), 0.93, 0.88]
    return {
        "item_id": f"{index:04d}",
        "category": category_of(sub_category).value,
        "sub_category": sub_category.value,
        "prompt": prompt,
        "negative_prompt": changed,
        "negative_kind": "replace",
        "chosen_variant": index % 3,
        "chosen_side": "base",
        "rejected_variant": 1,
        "rejected_side": "negative",
        "chosen_tokens": [1, 2],
        "rejected_tokens": [3, 4],
        "chosen_image": {"bytes": picture([(colour, shape), ("yellow", "circle")]), "path": "chosen.png"},
        "rejected_image": {"bytes": picture([(other, shape), ("yellow", "circle")]), "path": "rejected.png"},
        "chosen_answers": [dict(zip(ANSWERS, (q, p, 1 - p), strict=True)) for q, p in zip(asked, chosen, strict=True)],
        "rejected_answers": [
            dict(zip(ANSWERS, (q, p, 1 - p), strict=True)) for q, p in zip(asked, rejected, strict=True)
        ],
        "chosen_score": rng.uniform(0.6, 1.0),
        "rejected_score": rng.uniform(-0.9, 0.4),
        "image_logprob_gap": rng.gauss(0.0, 0.2),
        "text_logprob_gap": rng.gauss(0.3, 0.2),
        "rule": "v2",
        "chosen_mask": None,
        "rejected_mask": None,
    }


def metrics_rows(rng: random.Random, steps: int) -> list[Row]:
    rows = []
    for step in range(1, steps + 1):
        done = step / steps
        figures = {
            "loss": 4.2 - 1.4 * done + rng.gauss(0, 0.15),
            "simpo": 1.4 - 0.5 * done + rng.gauss(0, 0.1),
            "cond": 1.9 - 0.9 * done + rng.gauss(0, 0.12),
            "sft": 2.0 - 0.3 * done + rng.gauss(0, 0.05),
            "chosen_logprob": -2.0 + 0.3 * done + rng.gauss(0, 0.05),
            "rejected_logprob": -2.2 + 0.1 * done + rng.gauss(0, 0.05),
            "negative_prompt_logprob": -2.3 - 0.2 * done + rng.gauss(0, 0.05),
            "image_margin": 0.5 * done + rng.gauss(0, 0.1),
            "text_margin": 1.8 * done + rng.gauss(0, 0.15),
            "image_accuracy": min(1.0, 0.5 + 0.3 * done),
            "text_accuracy": min(1.0, 0.6 + 0.35 * done),
            "grad_norm": 1.5 + rng.random(),
            "learning_rate": 5e-5,
            "tokens_per_second": 2900 + 100 * rng.random(),
        }
        rows += [{"step": step, "name": name, "value": value} for name, value in figures.items()]
    return rows


def evaluation_rows(rng: random.Random, model: str, count: int, accuracy: float) -> list[Row]:
    rows = []
    for index in range(count):
        sub_category = list(SubCategory)[index % len(SubCategory)]
        colour, shape = sorted(COLOURS)[index % 5], SHAPES[index % 3]
        right = rng.random() < accuracy
        things = [(colour, shape)] if right else [(colour, shape), (rng.choice(sorted(COLOURS)), shape)]
        score = max(-1.0, min(1.0, rng.gauss(0.7 if right else -0.5, 0.4)))
        rows.append(
            {
                "item_id": f"held-{index:04d}",
                "model": model,
                "category": category_of(sub_category).value,
                "sub_category": sub_category.value,
                "prompt": f"a {colour} {shape}",
                "sample": 0,
                "seed": 7000 + index,
                "guidance": 1.0,
                "tokens": [5, 6],
                "image": {"bytes": picture(things), "path": f"{index}.png"},
                "answers": [{"question": f"is there a {colour} {shape} ?", "p_yes": (1 + score) / 2, "p_no": 0.0}],
                "vqa_score": score,
                "vqa_correct": score > 0,
                "oracle_correct": right,
            }
        )
    return rows


def evaluation_manifest(
    storage: Storage, rng: random.Random, count: int = 120, after: float = 0.62, **gate: Any
) -> Manifest:
    parents, children = evaluation_rows(rng, PARENT, count, 0.4), evaluation_rows(rng, CHILD, count, after)
    judged_by = JudgedBy(kind="start", name="5" * 64, answers=2 * count)
    extra = evaluation_extra(parents, children, EvaluationConfig(bootstrap=400), PromotionConfig(**gate), judged_by)
    extra["judged_by"] = judged_by.model_dump(mode="json")
    return publish(storage, StageName.EVALUATION, "evaluation", [*parents, *children], extra=extra)


def whole_round(storage: Storage, count: int = 120, after: float = 0.62, **gate: Any) -> dict[StageName, Manifest]:
    """Manifests of all eight stages; those whose rows the report does not read have none."""
    rng = random.Random(4)
    drops = {StageName.PROMPTS: {"duplicate": 41, "unparsable": 7, "number_above_four": 3}}
    made = {
        stage: publish(storage, stage, stage.value, [], items_in=660, drops=drops.get(stage, {})).model_copy(
            update={"rows": rows}
        )
        for stage, rows in (("prompts", 660), ("perturbations", 1957), ("questions", 2610), ("images", 3914))
        for stage in [StageName(stage)]
    }
    pairs = [pair_row(rng, index) for index in range(24)]
    lost = {"no_chosen_candidate": 190, "no_rejected_candidate": 61, "no_text_negative": 18}
    return made | {
        StageName.SCORES: publish(storage, StageName.SCORES, "scores", scores_rows(rng, 400)),
        StageName.PAIRS: publish(storage, StageName.PAIRS, "pairs", pairs, items_in=660, drops=lost),
        StageName.TRAINING: publish(storage, StageName.TRAINING, "metrics", metrics_rows(rng, 120), items_in=24),
        StageName.EVALUATION: evaluation_manifest(storage, rng, count, after, **gate),
    }


def with_all_columns(table: str, rows: Sequence[Row]) -> list[Row]:
    """The rows with an empty value in every column that they do not name."""
    from ospo_core.schema import TABLES

    return [{name: row.get(name) for name in TABLES[table].names} for row in rows]


def pictures(page: str) -> list[tuple[str, bytes]]:
    """Kind and bytes of the pictures of a Markdown page."""
    return [(kind, b64decode(data)) for _, kind, data in _IMAGE.findall(page)]
