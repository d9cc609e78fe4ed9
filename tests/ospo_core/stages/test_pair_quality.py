"""The selection against the oracle, on pictures whose truth is known."""

from __future__ import annotations

import random
from io import BytesIO
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from ospo_core.config.sections import SelectionConfig
from ospo_core.schema import TABLES, table_from_rows
from ospo_core.shapes.grammar import parse
from ospo_core.shapes.placement import paint, place
from ospo_core.shapes.render import render
from ospo_core.stages.pair_quality import quality, quality_counts

PROMPT = "a red circle left of a blue square"


def image(variant: int, side: str, shown: str) -> dict[str, Any]:
    rng = random.Random(variant)
    sentence = parse(shown)
    stream = BytesIO()
    Image.fromarray(render(paint(sentence, place(sentence, rng), rng))).save(stream, format="PNG")
    return {"item_id": "i", "variant": variant, "side": side, "image": {"bytes": stream.getvalue(), "path": ""}}


def score(variant: int, side: str, *p_yes: float) -> dict[str, Any]:
    answers = [{"question": "?", "p_yes": yes, "p_no": 1 - yes} for yes in p_yes]
    return {
        "item_id": "i",
        "variant": variant,
        "side": side,
        "answers": answers,
        "negative_answers": [],
        "score": sum(2 * yes - 1 for yes in p_yes) / len(p_yes),
        "logprob_base": -1.0,
        "logprob_negatives": [],
    }


def counted(rule: str = "v2") -> dict[str, int]:
    wrong = "a blue circle left of a blue square"
    images = [
        image(0, "base", PROMPT),
        image(1, "base", PROMPT),
        image(0, "negative", wrong),
        image(1, "negative", wrong),
    ]
    scores = [
        score(0, "base", 0.95, 0.99),  # right, and seen to be
        score(1, "base", 0.95, 0.05),  # right, but refused
        score(0, "negative", 0.9, 0.9),  # wrong, but accepted
        score(1, "negative", 0.9, 0.1),  # wrong, and seen to be
    ]
    pair = {"item_id": "i", "chosen_variant": 0, "chosen_side": "base", "rejected_variant": 1, "rejected_side": "base"}
    prompts = [{"item_id": "i", "prompt": PROMPT}]
    return quality_counts(
        prompts, images, table_from_rows("scores", scores), pa.Table.from_pylist([pair]), SelectionConfig(rule=rule)
    )


@pytest.mark.parametrize("rule", ["v2", "v3"])
def test_precision_and_recall_are_counted_by_hand(rule: str) -> None:
    assert quality(counted(rule)) == {
        "good_precision": 0.5,
        "good_recall": 0.5,
        "bad_precision": 0.5,
        "bad_recall": 0.5,
        "chosen_right": 1.0,
        "rejected_wrong": 0.0,
    }


def test_a_prompt_that_the_oracle_does_not_understand_is_left_out() -> None:
    rows = [image(0, "base", PROMPT)]
    scores, pairs = table_from_rows("scores", [score(0, "base", 0.9)]), TABLES["pairs"].empty_table()
    counts = quality_counts([{"item_id": "i", "prompt": "a dog"}], rows, scores, pairs, SelectionConfig())
    assert counts == {} and quality(counts) is None


def test_a_share_of_nothing_is_undefined() -> None:
    assert quality({"oracle_right": 3}) == {
        "good_precision": None,
        "good_recall": 0.0,
        "bad_precision": None,
        "bad_recall": None,
        "chosen_right": None,
        "rejected_wrong": None,
    }
