"""Arms against the base, worked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ospo_core.evaluation.comparison import Key, Verdicts, compare, two_level_interval, verdicts
from ospo_core.schema import ALL

CATEGORY = {"a": "layout", "b": "layout", "c": "complex", "d": "complex"}


def row(item: str, right: bool, judged: bool = False) -> dict[str, Any]:
    return {"item_id": item, "category": CATEGORY[item], "oracle_correct": right, "vqa_correct": judged}


def model(*right: float) -> Verdicts:
    return Verdicts(dict(zip(CATEGORY, right, strict=True)), CATEGORY)


def test_verdicts_are_means_over_the_samples_of_a_prompt() -> None:
    found = verdicts([row("a", True), row("a", False), row("b", True)], "oracle_correct")
    assert found.right == {"a": 0.5, "b": 1.0} and found.category == {"a": "layout", "b": "layout"}
    assert verdicts([row("a", True, judged=False)], "vqa_correct").right == {"a": 0.0}


def test_accuracy_gain_and_seeds_are_means() -> None:
    measured = {
        Key("base", 0, 1.0): model(1, 0, 0, 0),
        Key("base", 1, 1.0): model(1, 0, 0, 0),
        Key("v2", 0, 1.0): model(1, 1, 0, 0),
        Key("v2", 1, 1.0): model(1, 1, 1, 1),
    }
    gains = {(gain.arm, gain.group): gain for gain in compare(measured, "base", 200)}
    overall = gains["v2", ALL]
    assert overall.accuracy == 0.75 and overall.by_seed == (0.5, 1.0) and overall.gain == 0.5
    assert overall.interval.low <= 0.5 <= overall.interval.high
    assert gains["v2", "complex"].gain == 0.5 and gains["v2", "layout"].gain == 0.5
    assert gains["base", ALL].gain == 0 and gains["base", ALL].interval == (0.0, 0.0)


def test_guidance_scales_are_compared_with_the_base_at_the_same_scale() -> None:
    measured = {
        Key("base", 0, 1.0): model(0, 0, 0, 0),
        Key("base", 0, 2.0): model(1, 1, 1, 0),
        Key("v2", 0, 1.0): model(1, 0, 0, 0),
        Key("v2", 0, 2.0): model(1, 1, 0, 0),
    }
    gains = {
        gain.guidance: gain.gain for gain in compare(measured, "base", 50) if (gain.arm, gain.group) == ("v2", ALL)
    }
    assert gains == {1.0: 0.25, 2.0: -0.25}


def test_an_arm_without_base_or_with_other_prompts_is_an_error() -> None:
    with pytest.raises(ValueError, match="no base"):
        compare({Key("v2", 0, 1.0): model(1, 0, 0, 0)}, "base")
    other = Verdicts({"a": 1.0}, {"a": "layout"})
    with pytest.raises(ValueError, match="different prompts"):
        compare({Key("base", 0, 1.0): other, Key("base", 1, 1.0): model(1, 0, 0, 0)}, "base")


def test_the_interval_holds_the_spread_of_seeds_as_well_as_of_prompts() -> None:
    same = np.tile(np.repeat([0.0, 1.0], 500), (4, 1))
    prompts_only = two_level_interval(same, 2000, 0)
    assert prompts_only.low == pytest.approx(0.5 - 1.96 * 0.5 / np.sqrt(1000), abs=0.005)
    apart = np.stack([np.zeros(1000), np.ones(1000)])
    assert two_level_interval(apart, 2000, 0) == pytest.approx((0.0, 1.0))
    assert two_level_interval(same, 2000, 0) == prompts_only


def test_an_interval_needs_gains_and_resamples() -> None:
    for gains, resamples in ((np.empty((0, 3)), 10), (np.ones((1, 3)), 0)):
        with pytest.raises(ValueError, match="resamples"):
            two_level_interval(gains, resamples, 0)
