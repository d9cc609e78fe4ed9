"""A round that is killed and started again gives the pairs of an undisturbed one, to the digest.

Real processes run the real command line; each is killed (SIGKILL) as soon as a certain file has appeared, and the last
one is left to finish. The undisturbed round runs without Prefect in this process, so that the two also show that
Prefect changes nothing.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ospo_core.artifacts.manifest import Manifest, load_manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.config import RoundConfig
from ospo_core.rounds import Round
from ospo_core.rounds.plan import plan_round
from ospo_core.schema import StageName
from ospo_core.stages.model_ref import starting_model
from tests.support.rounds import ScriptedResources, run_stages, small_round
from tests.support.scripted_text import scripted_server

KILL_POINTS = (
    "prompts/*/raw-0-color_2-00000.json",
    "perturbations/*/part-00000.json",
    "images/*/part-00000-*.parquet",
    "scores/*/part-00000.json",
)
"""A process is killed when a file like this one has appeared: between shards, and between rows and entry of a shard."""

TIMEOUT = 600.0

pytestmark = pytest.mark.timeout(1800)  # six processes one after the other, half a minute on an idle machine


@dataclass(frozen=True)
class Interrupted:
    """A round that was killed several times, and which kill points were really met in mid-run."""

    config: RoundConfig
    killed: list[str]
    finished: bool


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.support.tiny_janus import make_tiny_janus

    folder: Path = tmp_path_factory.mktemp("kill")
    make_tiny_janus(folder / "model")
    return folder


@pytest.fixture(scope="module")
def interrupted(root: Path, prefect_server: str) -> Iterator[Interrupted]:
    with scripted_server() as address:
        config = a_round(root, "interrupted", address)
        profile = root / "interrupted.yaml"
        profile.write_text(config.model_dump_json(), encoding="utf-8")
        killed = [point for point in KILL_POINTS if run_until(point, config, profile, prefect_server)]
        last = start(profile, prefect_server)
        yield Interrupted(config, killed, last.wait(TIMEOUT) == 0)


def a_round(root: Path, name: str, address: str) -> RoundConfig:
    engine = {"kind": "endpoint", "base_url": address, "served_model": "rules"}
    storage = {"root": str(root / name), "scratch": str(root / f"{name}-scratch")}
    return small_round(root, storage=storage, engine=engine, model={"path": str(root / "model"), "device": "cpu"})


def start(profile: Path, api: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ospo", "stage", "pairs", "--profile", str(profile)]
    environment = {**os.environ, "PREFECT_API_URL": api, "OMP_NUM_THREADS": "1"}
    output = profile.with_suffix(".log").open("ab")
    return subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)


def run_until(point: str, config: RoundConfig, profile: Path, api: str) -> bool:
    """Start a round and kill it when `point` has appeared; return whether it was still running then."""
    process = start(profile, api)
    deadline = time.monotonic() + TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        if next(Path(config.storage.root).glob(point), None) is not None:
            break
        time.sleep(0.002)
    alive = process.poll() is None
    if alive:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return alive


def pairs_of(config: RoundConfig) -> Manifest:
    storage = Storage(config.storage.root)
    plans, manifests = plan_round(Round(config, storage, starting_model(config, storage)))
    assert [plan.status for plan in plans][:6] == ["cached"] * 6
    found = load_manifest(storage, StageName.PAIRS, manifests[StageName.PAIRS].fingerprint)
    assert found is not None
    return found


def test_every_kill_point_was_met_in_mid_run(interrupted: Interrupted) -> None:
    log = Path(interrupted.config.storage.root).parent / "interrupted.log"
    assert interrupted.killed == list(KILL_POINTS), log.read_text(encoding="utf-8")
    assert interrupted.finished, log.read_text(encoding="utf-8")


def test_pairs_are_those_of_an_undisturbed_round(interrupted: Interrupted, root: Path) -> None:
    undisturbed = a_round(root, "undisturbed", interrupted.config.engine.base_url or "")
    model = starting_model(undisturbed, Storage(undisturbed.storage.root))
    manifests = run_stages(undisturbed, ScriptedResources(), StageName.PAIRS, model)
    assert pairs_of(interrupted.config).digest == manifests[StageName.PAIRS].digest
    assert manifests[StageName.PAIRS].rows == 8


def test_no_half_written_shard_counts(interrupted: Interrupted) -> None:
    storage = Storage(interrupted.config.storage.root)
    for stage in list(StageName)[:6]:
        manifests = [key for key in storage.list(stage.value) if key.endswith("manifest.json")]
        assert len(manifests) == 1, stage
