"""Estimates are past speed times the work wanted, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ospo_core.artifacts.manifest import Manifest
from ospo_core.rounds.throughput import estimate_seconds
from ospo_core.schema import StageName
from ospo_core.stages.fingerprint import content_of
from tests.support.rounds import small_round


def past(stage: StageName, seconds: float, rows: int, *upstream: Manifest, **more: Any) -> Manifest:
    ingredients = {"upstream": {one.stage.value: content_of(one) for one in upstream}, **more.pop("ingredients", {})}
    name = f"{stage}-{seconds}"
    return Manifest(
        stage=stage, fingerprint=name, version=1, rows=rows, items_in=0, ingredients=ingredients, seconds=seconds,
        extra={"digest": name}, **more,
    )  # fmt: skip


def test_stages_are_scaled_by_prompts_sequences_and_pictures(tmp_path: Path) -> None:
    prompts = past(StageName.PROMPTS, 10.0, 100)
    images = past(StageName.IMAGES, 50.0, 600, prompts)
    slower = past(StageName.IMAGES, 150.0, 600, prompts)
    fields = {"fields": {"training": {"batch_size": 4, "accumulation": 5}}}
    training = past(StageName.TRAINING, 40.0, 1, ingredients=fields, counts={"steps": 10.0})
    evaluation = past(StageName.EVALUATION, 8.0, 80, counts={"images": 80.0})
    config = small_round(tmp_path)
    found = estimate_seconds(config, [prompts, images, slower, training, evaluation])
    assert found == {
        StageName.PROMPTS: pytest.approx(10 / 100 * 8),
        StageName.IMAGES: pytest.approx(200 / 200 * 8),
        StageName.TRAINING: pytest.approx(40 / 200 * 4),  # 2 steps of 2
        StageName.EVALUATION: pytest.approx(8 / 80 * 8),  # 4 prompts, 2 models
    }


def test_stage_without_past_or_done_over_in_part_is_not_guessed(tmp_path: Path) -> None:
    prompts = past(StageName.PROMPTS, 10.0, 100)
    part = past(StageName.IMAGES, 1.0, 600, prompts, ingredients={"redo": {"where": "category = 'layout'"}})
    orphan = past(StageName.SCORES, 1.0, 600)
    assert set(estimate_seconds(small_round(tmp_path), [prompts, part, orphan])) == {StageName.PROMPTS}
    assert estimate_seconds(small_round(tmp_path), []) == {}
