"""Rows of the table `evaluation`, made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def evaluation_row(
    item: str,
    model: str,
    correct: bool | None,
    *,
    category: str = "attribute",
    sub_category: str = "color_1",
    sample: int = 0,
    vqa_correct: bool = True,
    vqa_score: float = 0.5,
) -> dict[str, Any]:
    """One row; `correct` is the oracle's verdict."""
    return {
        "item_id": item,
        "model": model,
        "category": category,
        "sub_category": sub_category,
        "prompt": f"prompt {item}",
        "sample": sample,
        "seed": 1000 + sample,
        "guidance": 1.0,
        "tokens": [1, 2],
        "image": {"bytes": b"", "path": f"{item}.png"},
        "answers": [],
        "vqa_score": vqa_score,
        "vqa_correct": vqa_correct,
        "oracle_correct": correct,
    }


def evaluation_rows(model: str, verdicts: Sequence[bool], category: str = "attribute") -> list[dict[str, Any]]:
    """One row a verdict, items numbered within the category."""
    return [
        evaluation_row(f"{category}-{index:03d}", model, verdict, category=category)
        for index, verdict in enumerate(verdicts)
    ]
