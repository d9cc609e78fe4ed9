"""The held-out prompts of the shapes world: never in pretraining, and kept out of the prompts that the model writes."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path

from ospo_core.artifacts.ids import item_id
from ospo_core.schema import SubCategory, category_of
from ospo_core.shapes.grammar import Sentence
from ospo_core.shapes.invent import invent
from ospo_core.shapes.truth import questions_of

HELDOUT_FILE = Path(__file__).parent / "data" / "heldout.jsonl"
_SEED = 2026
_COUNTS: dict[SubCategory, int] = {
    SubCategory.COLOR_1: 30,
    SubCategory.SHAPE_1: 20,
    SubCategory.TEXTURE_1: 40,
    SubCategory.COLOR_2: 60,
    SubCategory.SHAPE_2: 60,
    SubCategory.TEXTURE_2: 60,
    SubCategory.SPATIAL_2D: 70,
    SubCategory.SPATIAL_3D: 60,
    SubCategory.NUMERACY_1: 30,
    SubCategory.NUMERACY_2: 60,
    SubCategory.NON_SPATIAL: 60,
    SubCategory.COMPLEX: 60,
}


def draw_heldout() -> list[dict[str, object]]:
    """Return the held-out prompts as rows: different texts, drawn with a fixed seed."""
    rng = random.Random(_SEED)
    rows: list[dict[str, object]] = []
    seen: set[str] = set()
    for sub_category, count in _COUNTS.items():
        wanted = len(rows) + count
        while len(rows) < wanted:
            sentence = invent(sub_category, rng)
            text = sentence.text()
            if text in seen:
                continue
            seen.add(text)
            rows.append(
                {
                    "item_id": item_id("heldout", text),
                    "category": category_of(sub_category).value,
                    "sub_category": sub_category.value,
                    "prompt": text,
                    "questions": [question.text for question in questions_of(sentence)],
                }
            )
    return rows


def write_heldout(path: Path = HELDOUT_FILE) -> None:
    """Write the held-out prompts as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in draw_heldout()), encoding="utf-8")


@cache
def heldout_texts() -> frozenset[str]:
    """Return the texts of the held-out prompts."""
    lines = HELDOUT_FILE.read_text(encoding="utf-8").splitlines()
    return frozenset(json.loads(line)["prompt"] for line in lines)


def invent_for_training(sub_category: SubCategory, rng: random.Random) -> Sentence:
    """Return a random sentence that is not held out."""
    while True:
        sentence = invent(sub_category, rng)
        if sentence.text() not in heldout_texts():
            return sentence
