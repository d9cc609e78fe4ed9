"""One recorded round, which no test changes."""

from __future__ import annotations

import pytest

from ospo_core.artifacts.storage import Storage
from tests.support.browsed_round import BrowsedRound, browsed_round


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> BrowsedRound:
    """Return the round in a storage of its own."""
    return browsed_round(Storage(str(tmp_path_factory.mktemp("root"))))
