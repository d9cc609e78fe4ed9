"""Listeners receive events only while they listen."""

from __future__ import annotations

from ospo_core.schema import StageName
from ospo_core.stages.progress import Event, emit, listening


def test_listener_hears_only_while_it_listens() -> None:
    heard: list[Event] = []
    event = Event("advanced", StageName.IMAGES, 1, 2)
    with listening(heard.append):
        emit(event)
    emit(event)
    assert heard == [event]
