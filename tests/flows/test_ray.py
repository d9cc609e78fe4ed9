"""Stages whose shards actors of a Ray cluster share: two nodes, real processes, one of them killed in mid-stage."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from flows.ray_cluster import actor_pool
from flows.round import RoundResult, self_improvement_round
from ospo_core.config import RoundConfig
from ospo_core.schema import StageName
from ospo_core.stages.resources import Resources
from tests.support.ray_nodes import HEAD, SECOND, RayNodes, ray_nodes, wait_until, workers
from tests.support.rounds import small_round, text_run
from tests.support.scripted_text import scripted_server
from tests.support.tiny_janus import make_tiny_janus
from tests.support.worker_stage import WorkerStage, spec

pytest.importorskip("ray", reason="ray is not installed: pip install ospo[ray]")
pytestmark = pytest.mark.timeout(900)

LAST = StageName.SCORES
ACTOR = "ray::ShardActor"
SHARD = f"{ACTOR}.compute"


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
        with suppress(TimeoutError):  # Ray ends them, but does not wait for that
            wait_until(lambda: not left_over(), "the end of all workers", 20.0)
        left = left_over()
        local = self_improvement_round(a_round(root, "local", text), until=LAST)
    return Rounds(on_ray, local, watch, left, kept)


def left_over() -> dict[int, str]:
    """Return the worker processes of Ray that are there now, busy or idle."""
    return {**workers(ACTOR), **workers(SHARD), **workers("ray::IDLE")}


def a_round(root: Path, name: str, text: str, **sections: object) -> RoundConfig:
    """Return a round of 4 shards a stage; its folders are relative, and both nodes have another current folder."""
    storage = {"root": f"{name}/store", "scratch": f"{name}/scratch", "shard_size": 2}
    engine = {"kind": "endpoint", "base_url": text, "served_model": "rules"}
    return small_round(root, storage=storage, engine=engine, model={"path": "model", "device": "cpu"}, **sections)


def test_an_actor_starts_its_engine_once(nodes: RayNodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = a_round(
        tmp_path, "starts", "http://127.0.0.1:9", execution={"runner": "ray", "ray_address": nodes.address}
    )
    run = text_run(WorkerStage(), config, Resources())
    pool, moved = actor_pool(run)
    with ThreadPoolExecutor(pool.size) as threads:
        made = list(threads.map(lambda index: pool.compute_shard(moved, spec(index, "start"))[0], range(6)))
    assert actor_pool(run)[0] is pool
    run.resources.release()
    facts = [fact for entry in made for fact in entry.extra.values()]
    assert len({fact["pid"] for fact in facts}) == 2 == pool.size
    assert {fact["starts"] for fact in facts} == {1}


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
