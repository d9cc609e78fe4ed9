"""What can be wrong with a Ray cluster is said at once, and names what to change; no cluster runs here."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from flows.ray_cluster import actor_pool, gpus_per_shard, with_absolute_paths
from flows.steps import run_step
from ospo_core.artifacts.manifest import Manifest, ShardEntry
from ospo_core.artifacts.storage import Storage
from ospo_core.errors import ConfigError, StageError
from ospo_core.rounds import Round
from ospo_core.schema import StageName
from ospo_core.stages import STAGES, StageRun
from tests.support.rounds import bound, made_up_model, small_round

pytestmark = pytest.mark.usefixtures("prefect_server")


SHARD = ShardEntry(name="part-00000", file="part-00000.parquet", table="", rows=1, sha256="0" * 64, bytes=1)
UPSTREAM = {
    name: Manifest(stage=name, fingerprint="f" * 64, version=1, shards=(SHARD,), rows=1, items_in=1)
    for name in StageName
}


def wanted(root: Path, name: StageName = StageName.IMAGES, **sections: Any) -> StageRun:
    config = small_round(root, **{"execution": {"runner": "ray"}, **sections})
    return bound(STAGES[name], config, UPSTREAM)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:9", "the Ray cluster does not answer"),
        ("ray://127.0.0.1:9", "the Ray cluster does not answer"),
        ("127.0.0.1", "not an address"),
        ("127.0.0.1:many", "not an address"),
    ],
)
def test_cluster_that_does_not_answer_is_named(tmp_path: Path, address: str, words: str) -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install ospo[ray]")
    run = wanted(tmp_path, execution={"runner": "ray", "ray_address": address})
    with pytest.raises(ConfigError, match=words) as caught:
        actor_pool(run)
    assert (caught.value.field, caught.value.value) == ("execution.ray_address", address)


def test_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That it is missing is made up, since it is installed where this runs."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else found(name))
    with pytest.raises(ConfigError, match=r"needs the package ray.*pip install ospo\[ray\]"):
        actor_pool(wanted(tmp_path))


def test_shards_need_a_flow_where_they_are_mapped_locally(tmp_path: Path) -> None:
    config = small_round(tmp_path)
    round = Round(config, Storage(config.storage.root), made_up_model(config))
    with pytest.raises(StageError, match="outside a flow"):
        run_step(round, StageName.IMAGES, UPSTREAM)


def test_a_shard_needs_a_gpu_if_its_stage_uses_one_and_there_is_one(tmp_path: Path) -> None:
    endpoint = {"kind": "endpoint", "base_url": "http://127.0.0.1:1", "served_model": "text"}
    auto = {"model": {"device": "auto"}, "engine": endpoint}
    assert [gpus_per_shard(wanted(tmp_path, stage, **auto), 2.0) for stage in StageName] == [0, 0, 0, 1, 1, 0, 1, 1]
    assert gpus_per_shard(wanted(tmp_path, **auto), 0.0) == 0
    assert gpus_per_shard(wanted(tmp_path, model={"device": "cpu"}), 2.0) == 0
    assert gpus_per_shard(wanted(tmp_path, StageName.PROMPTS, engine={"kind": "vllm"}), 1.0) == 1
    masks = {"training": {"loss": {"object_weight": 1.0}}}
    assert gpus_per_shard(wanted(tmp_path, StageName.PAIRS, **auto, **masks), 2.0) == 1, "object masks need the model"
    with pytest.raises(ConfigError, match=r"model\.device: no node of the Ray cluster has a GPU"):
        gpus_per_shard(wanted(tmp_path, model={"device": "cuda"}), 0.0)


def test_paths_mean_the_same_files_on_every_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    relative = wanted(tmp_path, storage={"root": "store", "scratch": "scratch"}, model={"path": "model"})
    moved = with_absolute_paths(relative)
    assert moved.config.storage.root == str(tmp_path / "store")
    assert moved.fingerprint == relative.fingerprint
    assert moved.config.model.path == moved.model.source == str(tmp_path / "model")
    for place in ("embedded:shapes", "current", "owner/name@main"):
        assert with_absolute_paths(wanted(tmp_path, model={"path": place})).config.model.path == place
