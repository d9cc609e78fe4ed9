"""Progress follows the events of stages, as bars in a terminal and as lines elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from ospo import progress
from ospo_core.schema import StageName
from ospo_core.stages.progress import Event


def test_lines_tell_of_stages_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.progress_bars() as (listener, say):
        say("starting")
        listener(Event("started", StageName.IMAGES, 1, 3))
        listener(Event("advanced", StageName.IMAGES, 2, 3))
        listener(Event("finished", StageName.IMAGES))
    assert capsys.readouterr().err == "images: 2 to do\nimages: finished\n"


def test_bars_follow_waves_and_cached_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()

    def terminal(stderr: bool) -> Console:
        return Console(file=screen, force_terminal=True, width=100)

    monkeypatch.setattr(progress, "Console", terminal)
    with progress.progress_bars() as (listener, say):
        say("starting")
        say("")
        listener(Event("cached", StageName.PROMPTS))
        listener(Event("started", StageName.IMAGES, 0, 2))
        listener(Event("advanced", StageName.IMAGES, 1, 2, "half"))
        listener(Event("started", StageName.IMAGES, 2, 3))
        listener(Event("finished", StageName.IMAGES))
    shown = screen.getvalue()
    assert "cached" in shown and "3/3" in shown


def test_bar_of_a_stage_that_starts_again_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda stderr: Console(file=screen, force_terminal=True, width=100))
    with progress.progress_bars() as (listener, _):
        listener(Event("cached", StageName.IMAGES))
        listener(Event("started", StageName.IMAGES, 0, 4))
    assert "0/4" in screen.getvalue()
