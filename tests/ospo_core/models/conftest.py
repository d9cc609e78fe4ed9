"""A tiny random Janus for all tests of the models room: written once, loaded once, never changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ospo_core.models.janus.model import JanusModel
from tests.support.tiny_janus import CODES, TOKENS, load_tiny_janus, make_tiny_janus


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_janus(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> JanusModel:
    return load_tiny_janus(tiny_folder)


@pytest.fixture(scope="session")
def prompts() -> list[str]:
    """Prompts of different lengths, so that every batch of them is padded."""
    return ["a red circle", "a blue square left of a green star on a white background", "two circles", "a star"]


@pytest.fixture(scope="session")
def images(prompts: list[str]) -> NDArray[np.uint16]:
    """Random tokens `[N, T]`, one image a prompt."""
    return np.random.default_rng(0).integers(0, CODES, (len(prompts), TOKENS), dtype=np.uint16)
