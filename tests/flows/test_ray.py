"""Stages whose shards are mapped over a Ray cluster: two nodes, real processes, one of them killed in mid-stage."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from flows.round import RoundResult, self_improvement_round
from ospo_core.config import RoundConfig
from ospo_core.schema import StageName
from tests.support.ray_nodes import HEAD, SECOND, RayNodes, ray_nodes, wait_until, workers
from tests.support.rounds import small_round
from tests.support.scripted_text import scripted_server
from tests.support.tiny_janus import make_tiny_janus

pytest.importorskip("ray", reason="ray is not installed: pip install ospo[ray]")
pytest.importorskip("prefect_ray", reason="prefect-ray is not installed: pip install ospo[ray]")
pytestmark = pytest.mark.timeout(900)

LAST = StageName.SCORES
SHARD = "ray::compute_shard"


@dataclass
class Watch:
    """Holds the first answers of two stages back until both nodes compute a shard; in the second, kills one worker."""

    busy: dict[str, set[str]] = field(default_factory=dict)
    killed: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def before(self, prompt: str) -> None:
        stage = "prompts" if "write a prompt about" in prompt else "questions" if "ask about" in prompt else "negatives"
        with self.lock:
            if stage in self.busy or stage == "questions":
                return
            wait_until(lambda: len(set(workers(SHARD).values())) == 2, "shards on both nodes")
            found = workers(SHARD)
            self.busy[stage] = set(found.values())
            if stage == "negatives":
                self.killed = next(pid for pid, node in found.items() if node == SECOND)
                os.kill(self.killed, signal.SIGKILL)


@dataclass(frozen=True)
class Rounds:
    """The same small round on Ray and in this process."""

    on_ray: RoundResult
    local: RoundResult
    watch: Watch
    left_over: dict[int, str]
    handler_kept: bool


@pytest.fixture(scope="module")
def nodes() -> Iterator[RayNodes]:
    with (
        tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder,
        ray_nodes(Path(folder)) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def rounds(nodes: RayNodes, prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Rounds:
    root: Path = tmp_path_factory.mktemp("round")
    make_tiny_janus(root / "model")
    watch = Watch()
    with scripted_server(watch.before) as text, pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        handler = signal.getsignal(signal.SIGTERM)
        on_ray = self_improvement_round(
            a_round(root, "ray", text, execution={"runner": "ray", "ray_address": nodes.address}), until=LAST
        )
        kept = signal.getsignal(signal.SIGTERM) is handler
        left = {**workers(SHARD), **workers("ray::IDLE")}
        local = self_improvement_round(a_round(root, "local", text), until=LAST)
    return Rounds(on_ray, local, watch, left, kept)


def a_round(root: Path, name: str, text: str, **sections: object) -> RoundConfig:
    """Return a round of 4 shards a stage; its folders are relative, and both nodes have another current folder."""
    storage = {"root": f"{name}/store", "scratch": f"{name}/scratch", "shard_size": 2}
    engine = {"kind": "endpoint", "base_url": text, "served_model": "rules"}
    return small_round(root, storage=storage, engine=engine, model={"path": "model", "device": "cpu"}, **sections)


def test_shards_ran_on_both_nodes_at_once(rounds: Rounds) -> None:
    assert rounds.watch.busy == {"prompts": {HEAD, SECOND}, "negatives": {HEAD, SECOND}}


def test_every_stage_has_the_digest_of_the_local_runner(rounds: Rounds) -> None:
    digests = [{name: one.digest for name, one in each.manifests.items()} for each in (rounds.on_ray, rounds.local)]
    assert digests[0] == digests[1] and list(digests[0])[-1] is LAST
    assert set(rounds.on_ray.ran) == set(digests[0])


def test_a_killed_worker_did_not_stop_the_stage(rounds: Rounds) -> None:
    assert rounds.watch.killed
    assert rounds.on_ray.manifests[StageName.PERTURBATIONS].rows > 0


def test_worker_processes_end_with_the_round_and_cancelling_still_works(rounds: Rounds) -> None:
    assert rounds.left_over == {}
    assert rounds.handler_kept
