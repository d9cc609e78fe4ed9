"""Storage that fails says what is wrong, where, and what to do; no credential is ever shown."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.storage_errors import as_storage_error
from ospo_core.errors import StorageError, redact
from tests.support.s3_server import S3Server

_PATIENCE = 12


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 256 KiB, where this user may mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small disk; see the test with a simulated one")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_named_and_keeps_what_it_had(small_disk: Path) -> None:
    """A write that does not fit fails as `disk full`; the old object and no half of the new one are there."""
    storage = Storage(str(small_disk))
    storage.write("key", b"old")
    for operation in (storage.write, storage.create):
        with pytest.raises(StorageError, match="disk full") as caught:
            operation("key" if operation == storage.write else "new", bytes(2**20))
        assert "Free space" in caught.value.remedy
    assert storage.read("key") == b"old" and storage.list() == ["key"]
    assert os.listdir(small_disk) == ["key"]


def test_a_read_only_root_is_named(small_disk: Path) -> None:
    """A disk mounted read-only fails check_writable as `read-only`."""
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StorageError, match="read-only"):
        Storage(str(small_disk)).check_writable()


@pytest.mark.parametrize(
    ("number", "problem"),
    [
        (errno.ENOSPC, "disk full"),
        (errno.EDQUOT, "disk full"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission"),
    ],
)
def test_a_failing_write_is_retold(
    local_storage: Storage, monkeypatch: pytest.MonkeyPatch, number: int, problem: str
) -> None:
    """What the system answers when bytes are flushed becomes a StorageError; nothing is left behind."""

    def fail(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    for operation in (local_storage.write, local_storage.create):
        with pytest.raises(StorageError, match=problem):
            operation("folder/key", b"data")
    assert os.listdir(Path(local_storage.root) / "folder") == []


def test_a_filesystem_without_hard_links_still_creates_once(
    local_storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where links are not supported, creation falls back on an exclusive open."""

    def refuse(_source: Path, _target: Path) -> None:
        raise OSError(errno.EOPNOTSUPP, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    assert local_storage.create("key", b"one") and not local_storage.create("key", b"two")
    assert local_storage.read("key") == b"one"


def test_a_file_in_the_place_of_the_root_is_an_error(tmp_path: Path) -> None:
    """A root below a file cannot be written, and the message names it."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="file/root"):
        Storage(str(tmp_path / "file" / "root")).check_writable()


def _assert_unreachable(endpoint: str) -> None:
    storage, start = Storage("s3://bucket/prefix", endpoint), time.monotonic()
    with pytest.raises(StorageError, match="unreachable") as caught:
        storage.check_writable()
    assert time.monotonic() - start < _PATIENCE
    assert endpoint in str(caught.value) and "storage.endpoint_url" in str(caught.value)


@pytest.mark.s3
@pytest.mark.usefixtures("s3_server")
def test_an_endpoint_that_refuses_is_unreachable() -> None:
    """Nobody listens on the port: a clear error within seconds, also from an ordinary read."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{probe.getsockname()[1]}"
    _assert_unreachable(endpoint)
    with pytest.raises(StorageError, match="unreachable"):
        Storage("s3://bucket/prefix", endpoint).read("key")


@pytest.mark.s3
@pytest.mark.usefixtures("s3_server")
def test_an_endpoint_that_never_answers_is_unreachable() -> None:
    """A server that takes the connection and stays silent is given up within seconds."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        _assert_unreachable(f"http://127.0.0.1:{silent.getsockname()[1]}")


@pytest.mark.s3
def test_a_missing_bucket_is_named(s3_server: S3Server) -> None:
    """Writing to a bucket that does not exist says so."""
    storage = Storage("s3://no-such-bucket/prefix", s3_server.endpoint_url)
    with pytest.raises(StorageError, match="no such bucket"):
        storage.check_writable()
    with pytest.raises(StorageError, match="no such bucket"):
        storage.create("key", b"")


@pytest.mark.s3
def test_a_wrong_secret_is_refused_without_being_shown(s3_storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real store checks signatures; the message names the variables, never their values."""
    import s3fs

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-right-secret")
    s3fs.S3FileSystem.clear_instance_cache()
    storage = Storage(s3_storage.root, s3_storage.endpoint_url)
    with pytest.raises(StorageError, match="access denied") as caught:
        storage.check_writable()
    with pytest.raises(StorageError, match="access denied"):
        storage.exists("key")
    s3fs.S3FileSystem.clear_instance_cache()
    assert "AWS_SECRET_ACCESS_KEY" in str(caught.value)
    assert "not-the-right-secret" not in str(caught.value) and "testkey" not in str(caught.value)


def test_credentials_in_an_address_are_refused_without_being_shown() -> None:
    """Neither the root nor the endpoint may carry `user:secret@`."""
    for root, endpoint in (("s3://user:hush@bucket/p", None), ("s3://bucket/p", "http://user:hush@host:1")):
        with pytest.raises(StorageError, match="credentials") as caught:
            Storage(root, endpoint)
        assert "hush" not in str(caught.value)


def test_messages_of_libraries_are_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library's message that quotes a secret or an address with a secret is cleaned, and not chained."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret-value")
    with pytest.raises(StorageError) as caught, as_storage_error("write", "s3://b/k"):
        raise OSError("signing with very-secret-value at http://me:hush@host failed")
    assert "very-secret-value" not in str(caught.value) and "hush" not in str(caught.value)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    assert redact("http://host/a@b") == "http://host/a@b"


@pytest.mark.parametrize("root", ["", "s3://", "gopher://x/y"])
def test_roots_that_name_no_place_are_refused(root: str) -> None:
    """An empty root, a missing bucket and an unknown protocol are told before anything runs."""
    with pytest.raises(StorageError, match=r"storage\.root"):
        Storage(root).check_writable()


def test_errors_of_the_program_itself_pass_through() -> None:
    """A bug inside the block is not dressed up as a storage failure."""
    with pytest.raises(ZeroDivisionError), as_storage_error("write", "x"):
        raise ZeroDivisionError
