"""Two processes run the same round at once, on one storage: both end well, and there is one result."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import pytest
import s3fs
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.sorting import FlowRunSort

from ospo_core.artifacts.storage import Storage
from ospo_core.config import RoundConfig
from ospo_core.rounds import Round
from ospo_core.rounds.plan import plan_round
from ospo_core.stages.model_ref import starting_model
from ospo_core.stages.run import content_of
from tests.support.rounds import small_round
from tests.support.s3_server import S3Server
from tests.support.scripted_text import scripted_server
from tests.support.tiny_janus import make_tiny_janus
from tests.support.verification import damage, unnamed

TIMEOUT = 600.0
_ROUNDS = """
import sys
from ospo.interrupt import quick_end
with quick_end():
    from ospo.app import run
    for profile in sys.argv[1:]:
        try:
            run(["round", "--profile", profile])
        except SystemExit as ended:
            if ended.code:
                raise
"""
pytestmark = [
    pytest.mark.s3,
    pytest.mark.timeout(1200),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("two")
    make_tiny_janus(folder / "model")
    return folder


@contextmanager
def meeting_engines() -> Iterator[list[dict[str, str]]]:
    """Serve two text engines, of which neither answers before both were asked; yield their configurations."""
    asked = [Event(), Event()]

    def meet(mine: int) -> Callable[[str], None]:
        def before(prompt: str) -> None:
            asked[mine].set()
            assert asked[1 - mine].wait(TIMEOUT), "the other round never asked"

        return before

    with scripted_server(meet(0)) as first, scripted_server(meet(1)) as second:
        yield [{"kind": "endpoint", "base_url": one, "served_model": "rules"} for one in (first, second)]


def run_all_twice_at_once(rounds: list[list[RoundConfig]], folder: Path, api: str) -> None:
    """Run the command line once for each round in one process, and at the same time in another; all must end well.

    `rounds` has two configurations a round: one for each process.
    """
    environment = {**os.environ, "PREFECT_API_URL": api, "OMP_NUM_THREADS": "1"}
    running = []
    for process_number in range(2):
        profiles = [folder / f"process-{process_number}-round-{number}.yaml" for number in range(len(rounds))]
        for profile, both in zip(profiles, rounds, strict=True):
            profile.write_text(both[process_number].model_dump_json(), encoding="utf-8")
        log = folder / f"process-{process_number}.log"
        with log.open("wb") as output:
            command = [sys.executable, "-c", _ROUNDS, *map(str, profiles)]
            running.append((subprocess.Popen(command, env=environment, stdout=output, stderr=output), log))
    for process, log in running:
        assert process.wait(TIMEOUT) == 0, log.read_text(encoding="utf-8", errors="replace")
    with SyncPrefectClient(api=api) as client:
        found = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=2 * len(rounds))[::-1]
    for number, (config, _) in enumerate(rounds):
        first, second = found[2 * number : 2 * number + 2]
        assert {first.name, second.name} == {f"{config.name}, seed {config.seed}"}
        assert second.start_time and first.end_time and second.start_time < first.end_time, "one ran after the other"


def contents(config: RoundConfig) -> dict[str, str]:
    """Return the digests of a finished round's stages; there is one result of each, whole, without stray files."""
    storage = Storage(config.storage.root, config.storage.endpoint_url)
    plans, manifests = plan_round(Round(config, storage, starting_model(config, storage)))
    assert {plan.status for plan in plans} == {"cached"}
    for name, manifest in manifests.items():
        assert damage(storage, manifest) == unnamed(storage, manifest) == []
        assert [key for key in storage.list(name.value) if key.endswith("manifest.json")] == [
            f"{manifest.prefix}/manifest.json"
        ]
    models = {key.split("/")[1] for key in storage.list("models")} - {"current.json"}
    assert models == {str(manifests[plans[6].stage].extra["model_digest"])}
    return {name.value: content_of(manifest) for name, manifest in manifests.items()}


def test_on_a_local_folder_with_one_scratch_folder_and_on_s3_with_two(
    root: Path, prefect_server: str, s3_server: S3Server
) -> None:
    bucket = f"two-{uuid.uuid4().hex[:8]}"
    s3fs.S3FileSystem(endpoint_url=s3_server.endpoint_url, skip_instance_cache=True).mkdir(bucket)
    place = {"root": f"s3://{bucket}/round", "endpoint_url": s3_server.endpoint_url}
    with meeting_engines() as engines, meeting_engines() as others:
        local = [small_round(root, name="local", engine=engine) for engine in engines]
        remote = [
            small_round(root, name="remote", engine=engine, storage={**place, "scratch": str(root / f"other-{number}")})
            for number, engine in enumerate(others)
        ]
        run_all_twice_at_once([local, remote], root, prefect_server)
    assert not list((root / "scratch" / "training").iterdir()), "the training's scratch folder or its lock is left"
    assert contents(remote[0]) == contents(local[0])
