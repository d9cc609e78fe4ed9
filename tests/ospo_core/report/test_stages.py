"""The table of stages in the terminal says what the manifests say."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

from rich.console import Console

from ospo_core.artifacts.storage import Storage
from ospo_core.report.stages import round_summary
from ospo_core.schema import StageName
from tests.support.synthetic_round import whole_round


def shown(thing: object) -> str:
    console = Console(width=140, record=True, file=StringIO())
    console.print(thing)
    return console.export_text()


def test_the_table_has_every_stage_its_drops_and_its_source(tmp_path: Path) -> None:
    manifests = whole_round(Storage(str(tmp_path)), count=24)
    text = shown(round_summary(manifests, ran=[StageName.PAIRS]))
    assert all(stage.value in text for stage in StageName)
    assert "190 no chosen candidate" in text and "24 preference pairs" in text
    assert text.count("cached") == 7 and "Source" not in shown(round_summary(manifests))


def test_markup_in_a_reason_is_shown_as_it_is(tmp_path: Path) -> None:
    manifests = whole_round(Storage(str(tmp_path)), count=24)
    pairs = manifests[StageName.PAIRS].model_copy(update={"drops": {"[red]odd[/red]": 2}})
    assert "2 [red]odd[/red]" in shown(round_summary({StageName.PAIRS: pairs}))
