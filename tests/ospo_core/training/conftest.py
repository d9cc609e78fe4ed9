"""One tiny model and one file of pairs for all tests of training."""

from __future__ import annotations

from pathlib import Path

import pytest

from ospo_core.models.janus.model import JanusModel
from tests.ospo_core.training.jobs import write_pairs
from tests.support.tiny_janus import load_tiny_janus, make_tiny_janus


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_janus(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def pairs_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.parquet")


@pytest.fixture
def loaded(model_folder: Path) -> JanusModel:
    """Return the tiny model, freshly read, since adapters change it in place."""
    return load_tiny_janus(model_folder)
