"""A whole round whose storage is a real object store: prompts to promotion, and cached when it is run again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import s3fs

from ospo_core.artifacts.manifest import load_manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.config import RoundConfig, load_profile
from ospo_core.schema import StageName
from ospo_core.stages.model_ref import starting_model
from ospo_core.stages.plan import plan_round, report_key
from tests.support.s3_server import S3Server

BUCKET = "rounds"
pytestmark = [pytest.mark.s3, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Finished:
    """A round on the object store, run twice by the real command line: what it was, and what the second run said."""

    config: RoundConfig
    storage: Storage
    again: str


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
    }
    overrides = [f"{name}={value}" for name, value in options.items()]
    run(overrides, prefect_server)
    again = run(overrides, prefect_server)
    config = load_profile("smoke", overrides)
    yield Finished(config, Storage(config.storage.root, config.storage.endpoint_url), again)


def run(overrides: list[str], api: str) -> str:
    """Run the smoke profile by the command line and return what it printed."""
    command = [sys.executable, "-m", "deployments.cli", "round", "--profile", "smoke"]
    command += [word for override in overrides for word in ("--set", override)]
    done = subprocess.run(command, env={**os.environ, "PREFECT_API_URL": api}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_stage_is_published_with_its_report(finished: Finished) -> None:
    model = starting_model(finished.config, finished.storage)
    plans, manifests = plan_round(finished.config, finished.storage, model)
    assert [plan.status for plan in plans] == ["cached"] * len(StageName)
    assert manifests[StageName.PAIRS].rows > 0
    assert finished.storage.exists(report_key(manifests))
    for name, manifest in manifests.items():
        assert load_manifest(finished.storage, name, manifest.fingerprint) == manifest


def test_the_second_run_finds_everything_cached(finished: Finished) -> None:
    sources = [line.split("│")[-2].strip() for line in finished.again.splitlines() if line.startswith("│")]
    assert sources[: len(StageName)] == ["cached"] * len(StageName)


def test_no_credentials_are_in_anything_published_as_text(finished: Finished, s3_server: S3Server) -> None:
    keys = [key for name in StageName for key in finished.storage.list(name.value) if key.endswith(".json")]
    assert keys
    for key in keys:
        text = finished.storage.read(key).decode()
        json.loads(text)
        assert s3_server.secret_key not in text and s3_server.access_key not in text, key
