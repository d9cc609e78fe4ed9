"""The benchmark of the browse page measures pages that are there, at a small size."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import browse
from ospo_core.artifacts.storage import Storage


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder: Path = tmp_path_factory.mktemp("round")
    browse.make_round(Storage(str(folder)), 300, 64, 50)
    return str(folder)


@pytest.mark.parametrize("page", browse.PAGES)
def test_every_page_is_there(root: str, page: str) -> None:
    found = browse.measure(root, page)
    assert found["first"] > 0 and found["again"] > 0 and found["peak"] >= found["before"] > 0
