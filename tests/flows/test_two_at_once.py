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


def run_twice_at_once(configs: list[RoundConfig], folder: Path, api: str) -> None:
    """Start the command line once for each configuration, together, and wait for both; both must end well."""
    environment = {**os.environ, "PREFECT_API_URL": api, "OMP_NUM_THREADS": "1"}
    running = []
    for number, config in enumerate(configs):
        profile = folder / f"{uuid.uuid4().hex[:8]}-{number}.yaml"
        profile.write_text(config.model_dump_json(), encoding="utf-8")
        command = [sys.executable, "-m", "ospo", "round", "--profile", str(profile)]
        with profile.with_suffix(".log").open("wb") as log:
            running.append((subprocess.Popen(command, env=environment, stdout=log, stderr=log), log.name))
    for process, log_name in running:
        assert process.wait(TIMEOUT) == 0, Path(log_name).read_text(encoding="utf-8", errors="replace")
    with SyncPrefectClient(api=api) as client:
        first, second = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=2)
    assert {first.name, second.name} == {f"{configs[0].name}, seed {configs[0].seed}"}
    assert first.start_time and second.end_time and first.start_time < second.end_time, "one ran after the other"


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
    with meeting_engines() as engines:
        local = [small_round(root, engine=engine) for engine in engines]
        run_twice_at_once(local, root, prefect_server)
    assert not list((root / "scratch" / "training").iterdir()), "the training's scratch folder or its lock is left"

    bucket = f"two-{uuid.uuid4().hex[:8]}"
    s3fs.S3FileSystem(endpoint_url=s3_server.endpoint_url, skip_instance_cache=True).mkdir(bucket)
    place = {"root": f"s3://{bucket}/round", "endpoint_url": s3_server.endpoint_url}
    with meeting_engines() as engines:
        remote = [
            small_round(root, engine=engine, storage={**place, "scratch": str(root / f"scratch-{number}")})
            for number, engine in enumerate(engines)
        ]
        run_twice_at_once(remote, root, prefect_server)
    assert contents(remote[0]) == contents(local[0])
