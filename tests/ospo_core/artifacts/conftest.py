"""Storage of both kinds."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
import s3fs

from ospo_core.artifacts.storage import Storage
from tests.support.s3_server import S3Server


@pytest.fixture
def s3_storage(s3_server: S3Server) -> Storage:
    """Return an empty storage in a new bucket of the real object store."""
    bucket = f"ospo-{uuid.uuid4().hex[:12]}"
    s3fs.S3FileSystem(endpoint_url=s3_server.endpoint_url).mkdir(bucket)
    return Storage(f"s3://{bucket}/runs/one", s3_server.endpoint_url)


@pytest.fixture
def local_storage(tmp_path: Path) -> Storage:
    """Return an empty storage in a local folder that does not exist yet."""
    return Storage(str(tmp_path / "root"))


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def storage(request: pytest.FixtureRequest) -> Storage:
    """Return an empty storage, once on local disk and once on the object store."""
    made = request.getfixturevalue(f"{request.param}_storage")
    assert isinstance(made, Storage)
    return made
