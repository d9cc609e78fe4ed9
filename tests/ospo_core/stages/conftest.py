"""One small round of the tiny random Janus, run once in this process and looked at by many tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.model_digest import model_digest
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.tables import read_table
from ospo_core.config import RoundConfig
from ospo_core.schema import StageName
from ospo_core.stages.model_ref import ModelRef
from tests.support.rounds import ScriptedResources, run_stages, small_round


def lenient_oracle(picture: Any, prompt: str) -> bool:
    """Accept pictures that are bright at the top left: an oracle for pictures of any size."""
    return bool(picture[0, 0].mean() > 100)


@dataclass(frozen=True)
class SmallRound:
    """A finished round."""

    config: RoundConfig
    storage: Storage
    model: ModelRef
    resources: ScriptedResources
    manifests: dict[StageName, Manifest]

    def rows(self, stage: StageName) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = read_table(self.storage, self.manifests[stage]).to_pylist()
        return rows


@pytest.fixture(scope="package")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallRound]:
    from tests.support.tiny_janus import make_tiny_janus

    root: Path = tmp_path_factory.mktemp("round")
    make_tiny_janus(root / "model")
    config, resources = small_round(root), ScriptedResources()
    model = ModelRef(digest=model_digest(root / "model"), source=str(root / "model"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ospo_core.evaluation.run.embedded_oracle", lenient_oracle)
        patch.setenv("OMP_NUM_THREADS", "1")
        manifests = run_stages(config, resources, StageName.EVALUATION, model)
        yield SmallRound(config, Storage(config.storage.root), model, resources, manifests)
