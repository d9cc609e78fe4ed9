"""The shipped model: small enough, plain safetensors, good at each of its jobs, and with something left to cure.

Measured on half of the held-out prompts; the bars leave room for the sampling of so few. The card has the full figures.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ospo_core.evaluation.shapes_card import measure_model
from ospo_core.models.locate import resolve_model
from ospo_core.schema import SubCategory

MEBIBYTE = 1024**2


@pytest.fixture(scope="module")
def weights() -> Path:
    return resolve_model("embedded:shapes")


@pytest.fixture(scope="module")
def figures(weights: Path) -> dict[str, float]:
    return measure_model(weights, 300, guidances=(1.0,), device="cpu")


def test_the_weights_are_small_and_have_a_model_card(weights: Path) -> None:
    files = [path for path in weights.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 20 * MEBIBYTE
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".md"}
    assert (weights / "README.md").is_file()


@pytest.mark.parametrize(
    ("figure", "bar"),
    [
        ("vq_keeps_scene", 0.99),
        ("prompts/valid", 0.9),
        ("prompts/distinct", 0.8),
        ("perturbations/valid", 0.9),
        ("dense/keeps_meaning", 0.95),
        ("questions/cover", 0.95),
        ("guidance_1/judge_accuracy", 0.93),
        ("guidance_1/judge_auc", 0.97),
    ],
)
def test_every_job_is_done_well_enough(figures: dict[str, float], figure: str, bar: float) -> None:
    assert figures[figure] >= bar, figures


def test_there_is_room_to_improve_in_every_sub_category(figures: dict[str, float]) -> None:
    assert 0.35 <= figures["guidance_1/accuracy"] <= 0.6
    assert all(figures[f"guidance_1/accuracy/{name.value}"] > 0 for name in SubCategory)
