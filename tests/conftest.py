"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.postgres import PostgresServer, missing_server, postgres_server
from tests.support.prefect_harness import prefect_server  # noqa: F401 - a fixture; sets Prefect up before its import
from tests.support.s3_server import PACKAGES, S3Server, missing_programs, s3_server

_INSTALL_TIMEOUT = 300


@pytest.fixture(scope="session", name="s3_server")
def s3_server_fixture() -> Iterator[S3Server]:
    """Run a real object store (Ceph RADOS Gateway) for the session, its credentials in the environment."""
    install(missing_programs, PACKAGES)
    with (
        tempfile.TemporaryDirectory(prefix="rgw", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as patch,
        s3_server(Path(folder)) as server,
    ):
        for variable in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
            patch.delenv(variable, raising=False)
        patch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
        patch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Run a real PostgreSQL server for the session."""
    install(missing_server, ("postgresql",))
    with (
        tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as folder,
        postgres_server(Path(folder)) as server,
    ):
        yield server


def install(missing: Callable[[], list[str]], packages: Sequence[str]) -> None:
    """Install Debian packages where that is possible and `missing` names something; skip the test where it is not."""
    if not missing():
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
            subprocess.run(
                ["apt-get", *command], env=environment, capture_output=True, timeout=_INSTALL_TIMEOUT, check=False
            )
    if missing():
        pytest.skip(f"{', '.join(missing())} missing here; apt-get install {' '.join(packages)}")
