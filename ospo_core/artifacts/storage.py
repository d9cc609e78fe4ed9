"""Object storage with atomic writes, exclusive creation and clear errors, on a local folder or over fsspec (S3)."""

from __future__ import annotations

import builtins
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from ospo_core.artifacts.addresses import check_endpoint, checked_key, is_key, split_root
from ospo_core.artifacts.atomic_write import atomic_folder, is_temporary
from ospo_core.artifacts.backends import Backend, LocalBackend, RemoteBackend, StoredObject
from ospo_core.artifacts.storage_errors import as_storage_error
from ospo_core.errors import StorageError

ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
"""Environment variables that hold the address of an S3-compatible store, unless one is configured."""

_PROBE = b"ospo" * 4096
_CONNECT_TIMEOUT = 2.5
_PATIENCE, _IMPATIENCE = 120.0, 8.0
_READ_TIMEOUT, _IMPATIENT_READ_TIMEOUT = 30.0, 3.0
_ATTEMPTS, _IMPATIENT_ATTEMPTS = 6, 3


class Storage:
    """A root under which artifacts are stored by key (`prompts/<fingerprint>/manifest.json`).

    Instances connect on first use and can be pickled to another process. Credentials of an object store come from the
    environment (AWS_ACCESS_KEY_ID and so on), never from an address, and are never shown.

    Args:
        root: a local folder, `file:///folder`, or `s3://bucket/prefix`.
        endpoint_url: address of an S3-compatible store; None means AWS itself, or AWS_ENDPOINT_URL.

    Raises:
        StorageError: the root is empty, has no bucket, or is another kind of address; or the endpoint is none.
    """

    def __init__(self, root: str, endpoint_url: str | None = None) -> None:
        if endpoint_url:
            check_endpoint(endpoint_url)
        self.endpoint_url = endpoint_url
        self.protocol, self.root = split_root(root)

    def __repr__(self) -> str:
        """Return the root, for logs."""
        return f"Storage({self.root!r})"

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for another process, without the open connection."""
        return {name: value for name, value in self.__dict__.items() if name != "_backend"}

    @contextmanager
    def _errors_of(self, action: str, key: str) -> Iterator[str]:
        """Yield `key`, checked; raise what the backend raises inside the block as StorageError."""
        with as_storage_error(action, self.uri(key), self.endpoint_url):
            yield checked_key(key)

    def read(self, key: str) -> bytes:
        """Return the bytes at `key`.

        Raises:
            MissingObjectError: it does not exist.
            StorageError: it cannot be read.
        """
        with self._errors_of("read", key):
            return self._backend.read(key)

    def blocks(self, key: str) -> Iterator[bytes]:
        """Yield the bytes at `key` in blocks of 16 MiB or less; errors as in `read`."""
        with self._errors_of("read", key):
            yield from self._backend.blocks(key)

    def sha256(self, key: str) -> tuple[str, int]:
        """Return the sha256 (hex) and the size in bytes of the object at `key`, read block by block."""
        digest, size = hashlib.sha256(), 0
        for block in self.blocks(key):
            digest.update(block)
            size += len(block)
        return digest.hexdigest(), size

    def write(self, key: str, data: bytes) -> None:
        """Put `data` at `key`, replacing what is there: readers see the old bytes or the new ones, never a part."""
        with self._errors_of("write", key):
            self._backend.write(key, data)

    def create(self, key: str, data: bytes) -> bool:
        """Put `data` at `key` unless it exists; of many writers exactly one gets True."""
        with self._errors_of("create", key):
            return self._backend.create(key, data)

    def exists(self, key: str) -> bool:
        """Return whether there is an object at `key`."""
        with self._errors_of("look for", key):
            return self._backend.exists(key)

    def list(self, prefix: str = "") -> list[str]:
        """Return the keys below the folder `prefix` (default: all), sorted; a missing folder has none."""
        return [one.key for one in self.details(prefix) if not is_temporary(PurePosixPath(one.key))]

    def details(self, prefix: str) -> builtins.list[StoredObject]:
        """Return the objects below the folder `prefix` with size and time, by key, including temporary files.

        What others have put there under names that are no keys, such as `a/../b` in a bucket, is not among them.
        """
        prefix = checked_key(prefix.rstrip("/")) if prefix.rstrip("/") else ""
        with as_storage_error("list", self.uri(prefix), self.endpoint_url):
            found = [one for one in self._backend.objects(prefix) if is_key(one.key)]
        return sorted(found, key=lambda one: one.key)

    def delete(self, key: str) -> None:
        """Remove the object at `key`; a missing object is not an error."""
        with self._errors_of("delete", key):
            self._backend.delete(key)

    def delete_folder(self, prefix: str) -> int:
        """Remove every object below `prefix`, manifests and entries first, and return their number.

        On a local disk this also removes the folder, with the temporary files of killed writers.
        """
        keys = sorted(self.list(checked_key(prefix.rstrip("/"))), key=lambda key: (not key.endswith(".json"), key))
        for key in keys:
            self.delete(key)
        folder = self.local_path(prefix.rstrip("/"))
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)  # a link in it is removed, not followed
        return len(keys)

    def put_folder(self, local: Path, key: str) -> None:
        """Copy the files of the folder `local` to keys below `key`, in name order; each file appears complete."""
        key = checked_key(key)
        if not local.is_dir():
            raise StorageError("is not a folder", field=str(local), remedy="Give the folder to store")
        for source in sorted(path for path in local.rglob("*") if path.is_file()):
            target = f"{key}/{source.relative_to(local).as_posix()}"
            with self._errors_of("write", target):
                self._backend.upload(source, target)

    def get_folder(self, key: str, local: Path, check: Callable[[Path], object] = lambda folder: None) -> None:
        """Copy the objects below `key` into the folder `local`, which appears complete or, if new, not at all.

        `check` sees the copy before it appears; if it raises an error, the copy is removed.

        Raises:
            StorageError: there is nothing below `key`, or the copy fails.
        """
        key = checked_key(key)
        keys = self.list(key)
        if not keys:
            raise StorageError("nothing is stored here", field=self.uri(key), remedy="Check the key")
        with as_storage_error("write", str(local)), atomic_folder(local, merge=True) as fresh:
            for entry in keys:
                target = fresh / entry.removeprefix(f"{key}/")
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as stream:
                    stream.writelines(self.blocks(entry))
            check(fresh)

    def uri(self, key: str = "") -> str:
        """Return the address of `key`: an absolute path, or `s3://bucket/prefix/key`."""
        return f"{self.root}/{key}" if key else self.root

    def local_path(self, key: str) -> Path | None:
        """Return the path of `key` if the root is a local folder, else None."""
        return Path(self.root) / checked_key(key) if self.protocol == "file" else None

    def storage_options(self) -> dict[str, str]:
        """Return the options that Polars needs to read an address of this storage; they contain no credentials."""
        configured = (self.endpoint_url, *map(os.environ.get, ENDPOINT_VARIABLES))
        endpoint = next(filter(None, configured), None)
        if self.protocol != "s3" or endpoint is None:
            return {}
        plain_http = str(endpoint.startswith("http://")).lower()
        region = os.environ.get("AWS_DEFAULT_REGION", os.environ.get("AWS_REGION", "us-east-1"))
        return {"aws_endpoint_url": endpoint, "aws_allow_http": plain_http, "aws_region": region}

    def check_writable(self) -> None:
        """Write and delete a small object, so that a long run fails early; takes at most 10 s on S3.

        Raises:
            StorageError: unreachable, access denied, no such bucket, read-only or full, each with its remedy.
        """
        key = f"probe-{uuid.uuid4().hex}"
        with as_storage_error("write", self.uri(), self.endpoint_url):
            backend = self._connect(patient=False)
            backend.write(key, _PROBE)
            backend.delete(key)

    @cached_property
    def _backend(self) -> Backend:
        """Return the backend, connected on first use."""
        return self._connect(patient=True)

    def _connect(self, patient: bool) -> Backend:
        """Return a new backend; an impatient one gives up within seconds if the store does not answer."""
        if self.protocol == "file":
            return LocalBackend(Path(self.root))
        import fsspec

        for variable in ENDPOINT_VARIABLES if self.endpoint_url is None else ():
            if os.environ.get(variable):
                check_endpoint(os.environ[variable], variable)
        with as_storage_error("open", self.root, self.endpoint_url):
            filesystem = fsspec.filesystem(self.protocol, **_s3_options(self.endpoint_url, patient))
            filesystem.retries = 1
        path = self.root.rpartition("://")[2]
        return RemoteBackend(filesystem, path, self.protocol, _PATIENCE if patient else _IMPATIENCE)


def _s3_options(endpoint_url: str | None, patient: bool) -> dict[str, Any]:
    """Return s3fs options: no stale listings, bounded waiting, and checksums only if the store requires them.

    `retries` is the one layer that retries requests: all that fail with 5xx, throttling, no answer or no connection.
    """
    config = {
        "connect_timeout": _CONNECT_TIMEOUT,
        "read_timeout": _READ_TIMEOUT if patient else _IMPATIENT_READ_TIMEOUT,
        "retries": {"total_max_attempts": _ATTEMPTS if patient else _IMPATIENT_ATTEMPTS, "mode": "standard"},
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
    }
    return {"endpoint_url": endpoint_url, "use_listings_cache": False, "config_kwargs": config}
