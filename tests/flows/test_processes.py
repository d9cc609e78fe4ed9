"""A round whose shards are shared by worker processes on this machine, one of which is killed in mid-shard."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from flows.round import RoundResult, self_improvement_round
from ospo_core.config import RoundConfig
from ospo_core.schema import StageName
from tests.support.rounds import small_round
from tests.support.scripted_text import scripted_server
from tests.support.tiny_janus import make_tiny_janus

pytestmark = pytest.mark.timeout(600)

LAST = StageName.SCORES


def workers() -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if "spawn_main" in " ".join(one.cmdline())]


@dataclass
class Watch:
    """Kills a worker as soon as one asks for a perturbation."""

    killed: int = 0
    seen: set[int] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def before(self, prompt: str) -> None:
        with self.lock:
            found = workers()
            self.seen |= {one.pid for one in found}
            if found and not self.killed and "write a prompt about" not in prompt:
                self.killed = found[0].pid
                os.kill(self.killed, signal.SIGKILL)


@dataclass(frozen=True)
class Rounds:
    """The same small round in two processes and in this one."""

    shared: RoundResult
    alone: RoundResult
    watch: Watch
    left_over: list[psutil.Process]


@pytest.fixture(scope="module")
def rounds(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Rounds:
    root: Path = tmp_path_factory.mktemp("processes")
    make_tiny_janus(root / "model")
    watch = Watch()
    with scripted_server(watch.before) as text:
        shared = self_improvement_round(a_round(root, "shared", text, 2), until=LAST)
        left = workers()
        alone = self_improvement_round(a_round(root, "alone", text, 1), until=LAST)
    return Rounds(shared, alone, watch, left)


def a_round(root: Path, name: str, text: str, processes: int) -> RoundConfig:
    return small_round(
        root,
        storage={"root": str(root / name), "scratch": str(root / f"{name}-scratch"), "shard_size": 2},
        engine={"kind": "endpoint", "base_url": text, "served_model": "rules"},
        execution={"processes": processes},
    )


def test_every_stage_has_the_digest_of_a_single_process(rounds: Rounds) -> None:
    digests = [{name: one.digest for name, one in each.manifests.items()} for each in (rounds.shared, rounds.alone)]
    assert digests[0] == digests[1] and list(digests[0])[-1] is LAST
    assert set(rounds.shared.ran) == set(digests[0])


def test_a_killed_worker_was_replaced_and_none_is_left(rounds: Rounds) -> None:
    assert rounds.watch.killed in rounds.watch.seen and len(rounds.watch.seen) == 3
    assert rounds.left_over == []


def test_manifests_say_with_which_batches_images_were_made(rounds: Rounds) -> None:
    images, scores = (rounds.shared.manifests[name].extra["batches"] for name in (StageName.IMAGES, StageName.SCORES))
    assert images == {"device": "cpu", "dtype": "float32", "sizes": {"sampling": 16, "decoding": 32}}
    assert scores["sizes"] == {"answering": 16, "scoring": 16}
    assert "batches" not in rounds.shared.manifests[StageName.QUESTIONS].extra
