"""Storage of both kinds, and small tables to keep in it."""

from __future__ import annotations

import uuid
from pathlib import Path

import pyarrow as pa
import pytest
import s3fs

from ospo_core.artifacts.storage import Storage
from ospo_core.schema import table_from_rows
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


def question_table(start: int, rows: int) -> pa.Table:
    """Return a table of questions with ids `item-<start>` and on."""
    return table_from_rows(
        "questions",
        [
            {"item_id": f"item-{number}", "of": "base", "prompt": "a red circle", "questions": ["is it red ?"]}
            for number in range(start, start + rows)
        ],
    )
