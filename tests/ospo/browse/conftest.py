"""The page over a recorded round of its own, asked as a browser on this machine would."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from ospo.browse.site import build_site
from ospo_core.artifacts.storage import Storage
from tests.support.browsed_round import BrowsedRound, browsed_round

ADDRESS = "http://127.0.0.1:8350"


@pytest.fixture(scope="package")
def original(tmp_path_factory: pytest.TempPathFactory) -> BrowsedRound:
    """Return the round that every test gets a copy of."""
    return browsed_round(Storage(str(tmp_path_factory.mktemp("original"))))


@pytest.fixture
def made(original: BrowsedRound, tmp_path: Path) -> BrowsedRound:
    """Return the round in a storage of its own."""
    shutil.copytree(original.storage.root, tmp_path / "root")
    return replace(original, storage=Storage(str(tmp_path / "root")))


@pytest.fixture
def client(made: BrowsedRound) -> TestClient:
    """Return a browser on the page."""
    return TestClient(build_site(made.storage), base_url=ADDRESS, follow_redirects=False)
