"""A whole round whose storage is a real object store: prompts to promotion, and cached when it is run again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import s3fs
from prefect.blocks.system import Secret
from prefect.client.orchestration import SyncPrefectClient, get_client

from ospo_core.artifacts.manifest import load_manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.config import RoundConfig, load_profile
from ospo_core.rounds import Round
from ospo_core.rounds.plan import plan_round, report_key
from ospo_core.schema import StageName
from ospo_core.stages.model_ref import starting_model
from tests.support.s3_server import S3Server

BUCKET = "rounds"
pytestmark = [pytest.mark.s3, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Finished:
    """A round on the object store, run twice by the real command line, and what it printed.

    The first run has the credentials in its environment, the second one takes them from a Prefect block.
    """

    config: RoundConfig
    storage: Storage
    printed: tuple[str, str]


@pytest.fixture(scope="module")
def finished(s3_server: S3Server, prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    scratch: Path = tmp_path_factory.mktemp("scratch")
    filesystem = s3fs.S3FileSystem(endpoint_url=s3_server.endpoint_url, skip_instance_cache=True)
    filesystem.mkdir(BUCKET)
    options = {
        "storage.root": f"s3://{BUCKET}/smoke",
        "storage.endpoint_url": s3_server.endpoint_url,
        "storage.scratch": str(scratch),
        "model.device": "cpu",
        "prompts.quotas": "{color_1: 4, spatial_2d: 4}",
        "training.steps": "2",
        "evaluation.limit": "8",
    }
    overrides = [f"{name}={value}" for name, value in options.items()]
    secrets = {"AWS_ACCESS_KEY_ID": s3_server.access_key, "AWS_SECRET_ACCESS_KEY": s3_server.secret_key}
    Secret(value=secrets).save("store-of-rounds", overwrite=True)
    first = run(overrides, prefect_server, dict(os.environ))
    bare = {name: value for name, value in os.environ.items() if name not in secrets}
    again = run([*overrides, "storage.credentials_block=store-of-rounds"], prefect_server, bare)
    config = load_profile("smoke", overrides)
    yield Finished(config, Storage(config.storage.root, config.storage.endpoint_url), (first, again))


def run(overrides: list[str], api: str, environment: dict[str, str]) -> str:
    """Run the smoke profile by the command line and return all that it printed."""
    command = [sys.executable, "-m", "ospo", "round", "--profile", "smoke"]
    command += [word for override in overrides for word in ("--set", override)]
    command.append("--verbose")
    done = subprocess.run(command, env={**environment, "PREFECT_API_URL": api}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_every_stage_is_published_with_its_report(finished: Finished) -> None:
    model = starting_model(finished.config, finished.storage)
    plans, manifests = plan_round(Round(finished.config, finished.storage, model))
    assert [plan.status for plan in plans] == ["cached"] * len(StageName)
    assert manifests[StageName.PAIRS].rows > 0
    assert finished.storage.exists(report_key(manifests))
    for name, manifest in manifests.items():
        assert load_manifest(finished.storage, name, manifest.fingerprint) == manifest


def test_the_second_run_finds_everything_cached(finished: Finished) -> None:
    lines = [line for line in finished.printed[1].splitlines() if line.startswith("│")]
    sources = [line.split("│")[-2].strip() for line in lines]
    assert sources[: len(StageName)] == ["cached"] * len(StageName)


def test_no_credential_is_in_what_is_published_printed_or_known_to_prefect(
    finished: Finished, s3_server: S3Server
) -> None:
    texts = {f"printed {number}": text.encode() for number, text in enumerate(finished.printed)}
    texts |= {key: finished.storage.read(key) for key in finished.storage.list()}
    assert sum(key.endswith(".json") for key in texts) > len(StageName)
    with get_client(sync_client=True) as client:
        for kind in ("artifacts", "flow_runs", "task_runs", "logs"):
            found = read_all(client, kind)
            assert found, kind
            texts |= {f"{kind} {number}": json.dumps(one).encode() for number, one in enumerate(found)}
    leaks = [
        name for name, text in texts.items() for secret in (s3_server.secret_key, s3_server.access_key)
        if secret.encode() in text
    ]  # fmt: skip
    assert leaks == []


def read_all(client: SyncPrefectClient, kind: str) -> list[dict[str, Any]]:
    """Everything of one kind that the server has, page by page."""
    rows: list[dict[str, Any]] = []
    while page := client._client.post(f"/{kind}/filter", json={"limit": 200, "offset": len(rows)}).json():
        rows += page
    return rows
