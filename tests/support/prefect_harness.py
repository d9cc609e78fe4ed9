"""One Prefect server for the whole test session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.prefect_server import configure_prefect, set_defaults

set_defaults()  # before any test imports Prefect, which reads its settings then


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run flows of this session against a temporary server; yield its address, for processes that tests start."""
    home: Path = tmp_path_factory.mktemp("prefect")
    os.environ.setdefault("PREFECT_HOME", str(home))
    configure_prefect(home)
    from prefect.settings import get_current_settings
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=240):
        address = get_current_settings().api.url
        assert address is not None
        yield address
