"""The collapse alarm."""

from __future__ import annotations

import math

from ospo_core.training.collapse import CollapseAlarm


def test_the_first_step_is_the_baseline_and_a_fall_within_the_drop_is_fine() -> None:
    alarm = CollapseAlarm(drop=1.0, patience=2)
    assert [alarm.observe(value) for value in (-3.0, -4.0, -2.0)] == [False, False, False]
    assert alarm.baseline == -3.0


def test_it_needs_patience_steps_in_a_row() -> None:
    alarm = CollapseAlarm(drop=1.0, patience=2)
    collapsed = []
    for value in (-3.0, -4.1, -3.0, -4.1, -4.2):
        alarm.observe(value)
        collapsed.append(alarm.collapsed)
    assert collapsed == [False, False, False, False, True]


def test_not_a_number_counts_as_below() -> None:
    alarm = CollapseAlarm(drop=1.0, patience=1)
    alarm.observe(-3.0)
    assert alarm.observe(math.nan)
    assert alarm.collapsed


def test_its_state_survives_a_round_trip() -> None:
    alarm = CollapseAlarm(drop=1.0, patience=2)
    alarm.observe(-3.0)
    alarm.observe(-5.0)
    restored = CollapseAlarm.model_validate_json(alarm.model_dump_json())
    restored.observe(-5.0)
    assert restored.collapsed
