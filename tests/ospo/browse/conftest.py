"""The page over a recorded round of its own, asked as a browser on this machine would."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from ospo.browse.site import build_site
from ospo_core.artifacts.storage import Storage
from tests.support.browsed_round import BrowsedRound, browsed_round

ADDRESS = "http://127.0.0.1:8350"


@pytest.fixture
def made(tmp_path: Path) -> BrowsedRound:
    """Return the round in a storage of its own."""
    return browsed_round(Storage(str(tmp_path / "root")))


@pytest.fixture
def client(made: BrowsedRound) -> TestClient:
    """Return a browser on the page."""
    return TestClient(build_site(made.storage), base_url=ADDRESS, follow_redirects=False)
