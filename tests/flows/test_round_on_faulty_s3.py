"""A whole round on a real object store of which every tenth request fails: it completes, with the same content."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import s3fs

from flows.round import RoundResult, self_improvement_round
from ospo_core.artifacts import storage as storage_module
from ospo_core.artifacts.storage import Storage
from ospo_core.config import RoundConfig
from ospo_core.schema import StageName
from ospo_core.stages.model_ref import starting_model
from ospo_core.stages.run import content_of
from tests.support.fault_proxy import KINDS, FaultProxy, fault_proxy, seeded
from tests.support.rounds import ScriptedResources, run_stages, small_round
from tests.support.s3_server import S3Server
from tests.support.scripted_text import scripted_server
from tests.support.tiny_janus import make_tiny_janus
from tests.support.verification import damage, unnamed

BUCKET = "faulty"
SHARE = 0.1
pytestmark = [pytest.mark.s3, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Disturbed:
    """A round that went through the faulty proxy, the store behind it, and what the proxy did."""

    config: RoundConfig
    result: RoundResult
    storage: Storage
    proxy: FaultProxy


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("faulty")
    make_tiny_janus(folder / "model")
    return folder


@pytest.fixture(scope="module")
def disturbed(root: Path, s3_server: S3Server, prefect_server: str) -> Iterator[Disturbed]:
    s3fs.S3FileSystem(endpoint_url=s3_server.endpoint_url, skip_instance_cache=True).mkdir(BUCKET)
    with (
        pytest.MonkeyPatch.context() as patch,
        scripted_server() as address,
        fault_proxy(s3_server.endpoint_url, seeded(4, SHARE), hang_s=4.0) as proxy,
    ):
        patch.setattr(storage_module, "_READ_TIMEOUT", 3.0)
        patch.setenv("OMP_NUM_THREADS", "1")
        storage = {"root": f"s3://{BUCKET}/round", "endpoint_url": proxy.endpoint_url}
        engine = {"kind": "endpoint", "base_url": address, "served_model": "rules"}
        config = small_round(root, storage=storage, engine=engine)
        result = self_improvement_round(config)
        yield Disturbed(config, result, Storage(config.storage.root, s3_server.endpoint_url), proxy)
    s3fs.S3FileSystem.clear_instance_cache()


def test_requests_failed_in_every_way(disturbed: Disturbed) -> None:
    assert set(disturbed.proxy.injected) == set(KINDS)
    assert 0.05 < disturbed.proxy.injected.total() / disturbed.proxy.requests < 0.2
    assert 0 < disturbed.proxy.answers_lost < disturbed.proxy.injected.total()


def test_the_round_completed_with_the_content_of_an_undisturbed_one(
    disturbed: Disturbed, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    local = {"root": str(root / "calm"), "scratch": str(root / "calm-scratch"), "endpoint_url": None}
    calm = small_round(root, storage=local, engine=disturbed.config.engine.model_dump())
    model = starting_model(calm, Storage(calm.storage.root))
    undisturbed = run_stages(calm, ScriptedResources(), StageName.EVALUATION, model)
    assert set(disturbed.result.ran) == set(StageName)
    found = {name: content_of(manifest) for name, manifest in disturbed.result.manifests.items()}
    assert found == {name: content_of(manifest) for name, manifest in undisturbed.items()}


def test_nothing_half_written_is_visible(disturbed: Disturbed) -> None:
    """Every file of a stage verifies and is named; besides there are model, records, held-out questions and report."""
    expected: set[str] = set()
    for manifest in disturbed.result.manifests.values():
        assert damage(disturbed.storage, manifest) == unnamed(disturbed.storage, manifest) == []
        expected |= set(disturbed.storage.list(manifest.prefix))
    training = disturbed.result.manifests[StageName.TRAINING]
    expected |= set(disturbed.storage.list(str(training.extra["merged"])))
    others = {key for key in disturbed.storage.list() if key not in expected}
    assert {key.split("/")[0] for key in others} <= {"heldout", "models", "reports", "rounds"}
    assert {key for key in others if key.startswith("models/")} <= {"models/current.json"}
    assert disturbed.storage.uri(disturbed.result.report.partition("/round/")[2]) == disturbed.result.report
    assert disturbed.storage.read(disturbed.result.report.partition("/round/")[2]).endswith(b"</html>")
