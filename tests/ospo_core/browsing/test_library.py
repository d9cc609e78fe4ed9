"""The list of rounds, and what is said of ids that are none and of records that are damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.storage_errors import MissingObjectError
from ospo_core.browsing.library import Library
from ospo_core.schema import StageName
from tests.support.browsed_round import ROUND_ID, BrowsedRound, browsed_round

HOSTILE_IDS = ["", "..", "../../etc/passwd", "0123456789AB", ROUND_ID + "\n", "0" * 12, "f" * 64, "%2e%2e"]


def test_rounds_show_their_stages_and_outcome(made: BrowsedRound) -> None:
    (line,) = Library(made.storage).rounds()
    assert line.id == ROUND_ID and line.stages == tuple(StageName) and line.decision is not None
    assert Library(made.storage).manifests(ROUND_ID) == made.manifests
    assert Library(made.storage).round_of(made.evaluation) == ROUND_ID


@pytest.mark.parametrize("wanted", HOSTILE_IDS)
def test_what_is_no_id_is_missing(made: BrowsedRound, wanted: str) -> None:
    library = Library(made.storage)
    for ask in (library.record, library.manifests, library.report, lambda one: library.manifest(StageName.PAIRS, one)):
        with pytest.raises(MissingObjectError):
            ask(wanted)


def test_a_damaged_round_is_listed_with_its_problem(tmp_path: Path) -> None:
    storage = browsed_round(Storage(str(tmp_path))).storage
    storage.write(f"rounds/{ROUND_ID}/round.json", b"{}")
    (line,) = Library(storage).rounds()
    assert line.record is None and "round.json" in line.problem


def test_an_empty_storage_has_no_rounds(tmp_path: Path) -> None:
    assert Library(Storage(str(tmp_path / "nothing"))).rounds() == []
