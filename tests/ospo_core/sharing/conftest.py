"""One tiny model for all tests of sharing."""

from __future__ import annotations

from pathlib import Path

import pytest

from ospo_core.models.janus.model import JanusModel
from tests.support.tiny_janus import load_tiny_janus, make_tiny_janus


@pytest.fixture(scope="package")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_janus(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="package")
def tiny(tiny_folder: Path) -> JanusModel:
    return load_tiny_janus(tiny_folder)
