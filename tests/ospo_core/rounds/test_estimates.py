"""What a round costs before it runs: amounts from the configuration, speeds from past results or from the profile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ospo_core.artifacts.ids import digest_of
from ospo_core.artifacts.manifest import Manifest
from ospo_core.config import load_profile
from ospo_core.rounds.estimates import expected_seconds, expected_work
from ospo_core.schema import StageName
from ospo_core.stages.run import content_of
from tests.support.rounds import small_round


@pytest.mark.parametrize("profile", ["janus-pro-1b", "janus-pro-7b"])
def test_the_round_of_the_paper_is_counted_before_any_model_is_there(profile: str) -> None:
    config = load_profile(profile)
    work = expected_work(config)
    assert work[StageName.IMAGES].images == 6 * 16_002 == 96_012
    assert work[StageName.TRAINING].pairs == 500 * 128
    assert work[StageName.SCORES].questions > 5 * 96_012 and work[StageName.SCORES].sequences > 96_012
    assert work[StageName.EVALUATION].images == 2 * config.evaluation.limit * config.evaluation.samples
    assert work[StageName.PERTURBATIONS].tokens > work[StageName.PROMPTS].tokens > 16_002 * 50
    assert 5e9 < sum(one.bytes for one in work.values()) < 1e11
    seconds = expected_seconds(config, work, [])
    assert set(seconds) == set(StageName)
    assert seconds[StageName.IMAGES] == pytest.approx(96_012 / (config.speeds.images or 0))


def test_without_speeds_only_what_needs_none_is_unknown(tmp_path: Path) -> None:
    config = small_round(tmp_path)
    partly = config.model_copy(update={"speeds": config.speeds.model_copy(update={"images": 2.0})})
    found = expected_seconds(partly, expected_work(partly), [])
    assert found[StageName.IMAGES] == expected_work(partly)[StageName.IMAGES].images / 2
    assert StageName.PROMPTS not in found and StageName.EVALUATION not in found, "their other speeds are not stated"


def test_a_quota_of_nothing_is_no_work(tmp_path: Path) -> None:
    config = small_round(tmp_path)
    empty = config.model_copy(update={"prompts": config.prompts.model_copy(update={"quotas": {}})})
    work = expected_work(empty)
    assert work[StageName.IMAGES].images == work[StageName.SCORES].questions == work[StageName.PROMPTS].tokens == 0


def past(stage: StageName, seconds: float, rows: int, *upstream: Manifest, **more: Any) -> Manifest:
    ingredients = {"upstream": {one.stage.value: content_of(one) for one in upstream}, **more.pop("ingredients", {})}
    name = f"{stage}-{seconds}"
    return Manifest(
        stage=stage, fingerprint=digest_of(name), version=1, rows=rows, items_in=0, ingredients=ingredients,
        seconds=seconds, extra={"digest": name}, **more,
    )  # fmt: skip


def test_stages_are_scaled_by_prompts_sequences_and_pictures(tmp_path: Path) -> None:
    prompts = past(StageName.PROMPTS, 10.0, 100)
    images = past(StageName.IMAGES, 50.0, 600, prompts)
    slower = past(StageName.IMAGES, 150.0, 600, prompts)
    fields = {"fields": {"training": {"batch_size": 4, "accumulation": 5}}}
    training = past(StageName.TRAINING, 40.0, 1, ingredients=fields, counts={"steps": 10.0})
    evaluation = past(StageName.EVALUATION, 8.0, 80, counts={"images": 80.0})
    config = small_round(tmp_path)
    found = expected_seconds(config, expected_work(config), [prompts, images, slower, training, evaluation])
    assert found == {
        StageName.PROMPTS: pytest.approx(10 / 100 * 8),
        StageName.IMAGES: pytest.approx(200 / 200 * 8),
        StageName.TRAINING: pytest.approx(40 / 200 * 4),  # 2 steps of 2
        StageName.EVALUATION: pytest.approx(8 / 80 * 8),  # 4 prompts, 2 models
    }


def test_stage_without_a_complete_past_result_has_no_estimate(tmp_path: Path) -> None:
    prompts = past(StageName.PROMPTS, 10.0, 100)
    part = past(StageName.IMAGES, 1.0, 600, prompts, ingredients={"redo": {"where": "category = 'layout'"}})
    orphan = past(StageName.SCORES, 1.0, 600)
    drawn = past(StageName.IMAGES, 9.0, 600, prompts, ingredients={"fields": {"benchmark": "geneval"}})
    scored = past(StageName.EVALUATION, 9.0, 600, ingredients={"fields": {"benchmark": "geneval"}})
    config = small_round(tmp_path)
    work = expected_work(config)
    assert set(expected_seconds(config, work, [prompts, part, orphan, drawn, scored])) == {StageName.PROMPTS}
    assert expected_seconds(config, work, []) == {}


@pytest.mark.parametrize("training", [None, {}, {"batch_size": 2}, {"batch_size": 10**400, "accumulation": 1}])
def test_a_past_result_that_does_not_say_its_work_counts_nothing(tmp_path: Path, training: Any) -> None:
    silent = [past(StageName.TRAINING, 1.0, 1), past(StageName.EVALUATION, 1.0, 1)]
    odd = past(StageName.TRAINING, 2.0, 1, ingredients={"fields": {"training": training}}, counts={"steps": 10.0})
    config = small_round(tmp_path)
    assert expected_seconds(config, expected_work(config), [*silent, odd]) == {}
