"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.prefect_harness import prefect_server  # noqa: F401 - a fixture; sets Prefect up before its import
from tests.support.s3_server import PACKAGES, S3Server, missing_programs, s3_server

_INSTALL_TIMEOUT = 300


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that may take longest first, so that the processes of a parallel run end together."""
    allowed: dict[Path, float] = {}
    for item in items:
        marker = item.get_closest_marker("timeout")
        allowed[item.path] = max(allowed.get(item.path, 0.0), float(marker.args[0]) if marker else 0.0)
    items.sort(key=lambda item: -allowed[item.path])


@pytest.fixture(scope="session", name="s3_server")
def s3_server_fixture() -> Iterator[S3Server]:
    """Run a real object store (Ceph RADOS Gateway) for the session, its credentials in the environment."""
    _install_store()
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


def _install_store() -> None:
    """Install the store's Debian packages where that is possible; skip the test where it is not."""
    if not missing_programs():
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
            subprocess.run(
                ["apt-get", *command], env=environment, capture_output=True, timeout=_INSTALL_TIMEOUT, check=False
            )
    if missing_programs():
        pytest.skip(
            f"no object store here: {', '.join(missing_programs())} missing; apt-get install {' '.join(PACKAGES)}"
        )
