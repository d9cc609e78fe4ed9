"""Where bytes are kept: in a local folder, or on any fsspec filesystem whose single put is atomic, such as S3.

`LocalBackend.create` is own code: fsspec's local filesystem has no creation that is both exclusive and atomic.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from fsspec import AbstractFileSystem

from ospo_core.artifacts.atomic_write import atomic_file, flush_to_disk, temporary_file
from ospo_core.artifacts.storage_errors import is_left_to_the_caller, response_code, storage_exceptions
from ospo_core.errors import StorageError

Answer = TypeVar("Answer")

_MIB = 2**20
_LOCAL_BLOCK, _REMOTE_BLOCK = _MIB, 16 * _MIB
_SINGLE_PUT = 5 * 2**30
_TAKEN = {"PreconditionFailed", "412"}
_WRITER = "ospo-writer"
_REPEATS, _REPEAT_WAIT_S = 5, 0.1
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


@dataclass(frozen=True)
class StoredObject:
    """One object: its key, its size in bytes, and when it was last written (seconds since 1970)."""

    key: str
    size: int
    modified: float


class LocalBackend:
    """A folder of this machine. The root may be reached through links; below it none is followed."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, key: str) -> bytes:
        """Return the bytes at `key`."""
        return self._path(key).read_bytes()

    def blocks(self, key: str) -> Iterator[bytes]:
        """Yield the bytes at `key` block by block."""
        with self._path(key).open("rb") as stream:
            while block := stream.read(_LOCAL_BLOCK):
                yield block

    def write(self, key: str, data: bytes) -> None:
        """Write a temporary file beside `key`, flush it to the disk, and rename it into place."""
        with atomic_file(self._path(key)) as temporary:
            temporary.write_bytes(data)

    def create(self, key: str, data: bytes) -> bool:
        """Write a temporary file and link it to `key`, which fails if `key` exists; readers see all of it or none."""
        target = self._path(key)
        if target.exists():
            return False
        with temporary_file(target) as temporary:
            temporary.write_bytes(data)
            flush_to_disk(temporary)
            try:
                os.link(temporary, target)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_HARD_LINKS:
                    raise
                return _create_without_link(target, data)
            flush_to_disk(target.parent)
        return True

    def upload(self, source: Path, key: str) -> None:
        """Copy `source` to a temporary file beside `key` and rename it into place."""
        with atomic_file(self._path(key)) as temporary:
            shutil.copyfile(source, temporary)

    def exists(self, key: str) -> bool:
        """Return whether there is a file at `key`."""
        return self._path(key).is_file()

    def objects(self, prefix: str) -> list[StoredObject]:
        """Return the files below `prefix` ("" is the root), with temporary ones, without vanishing ones and links."""
        found: list[StoredObject] = []
        for path in self._path(prefix).rglob("*"):
            with suppress(FileNotFoundError):
                status = path.lstat()
                if stat.S_ISREG(status.st_mode):
                    key = path.relative_to(self.root).as_posix()
                    found.append(StoredObject(key, status.st_size, status.st_mtime))
        return found

    def delete(self, key: str) -> None:
        """Remove the file at `key`."""
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        """Return the path of `key`.

        Raises:
            StorageError: a part of it is a symbolic link, which may lead out of the root.
        """
        path = self.root / key
        parts = [path, *path.parents]
        for part in parts[: parts.index(self.root)]:
            if part.is_symlink():
                remedy = "Put what it names in its place: links in a storage are not followed"
                raise StorageError("is a symbolic link", field=str(part), remedy=remedy)
        return path


class RemoteBackend:
    """A folder of an fsspec filesystem whose single put is atomic, as S3's is.

    Requests are retried by botocore (see `retries` in `storage.py`), and by nothing else on the way: s3fs's own loop is
    switched off. What remains here are answers that a retry of the request alone cannot mend. A put may have succeeded
    although its answer was lost, so `create` recognises its own object by a mark and `upload` starts again. A body
    may be cut short after botocore has handed it on, so it is read again. If a failure lasts longer than all that, the
    operation raises, and Prefect retries the whole task (`tasks/retries.py`).

    `root` is `bucket/prefix`, without the protocol. A put may take `patience` seconds, plus one second per MiB: the
    library's own timeouts do not cover a server that accepts the connection and never asks for the body.
    """

    def __init__(self, filesystem: AbstractFileSystem, root: str, protocol: str, patience: float) -> None:
        self.filesystem, self.root, self.protocol, self.patience = filesystem, root.strip("/"), protocol, patience

    def read(self, key: str) -> bytes:
        """Return the bytes at `key`, in one request."""
        return cast(bytes, _repeated(lambda: self.filesystem.cat_file(self._path(key))))

    def blocks(self, key: str) -> Iterator[bytes]:
        """Yield the bytes at `key` block by block, one request per block."""
        path = self._path(key)
        size = int(self.filesystem.info(path)["size"])
        for start in range(0, size, _REMOTE_BLOCK):
            end = min(start + _REMOTE_BLOCK, size)
            yield cast(bytes, _repeated(partial(self.filesystem.cat_file, path, start=start, end=end)))

    def write(self, key: str, data: bytes) -> None:
        """Put `data` in one request (several above S3's 5 GiB)."""
        _repeated(lambda: self.filesystem.pipe_file(self._path(key), data, **self._put_options(len(data))))

    def create(self, key: str, data: bytes) -> bool:
        """Put `data` in one conditional request; an object with this call's mark is its own, whose answer was lost."""
        mark = uuid.uuid4().hex
        options = self._put_options(len(data)) | ({"Metadata": {_WRITER: mark}} if self.protocol == "s3" else {})
        try:
            _repeated(lambda: self.filesystem.pipe_file(self._path(key), data, mode="create", **options))
        except OSError as error:
            if not isinstance(error, FileExistsError) and response_code(error) not in _TAKEN:
                raise
            with suppress(FileNotFoundError):
                return self.protocol == "s3" and self.filesystem.metadata(self._path(key)).get(_WRITER) == mark
            return False
        return True

    def upload(self, source: Path, key: str) -> None:
        """Copy the local file `source`, in parts if it is large.

        An upload in parts that its server no longer knows was completed or given up by a request whose answer was lost;
        it starts again, once.
        """
        options = {"timeout": self.patience + source.stat().st_size / _MIB} if self.protocol == "s3" else {}
        put = partial(self.filesystem.put_file, str(source), self._path(key), **options)
        try:
            _repeated(put)
        except FileNotFoundError as error:
            if response_code(error) != "NoSuchUpload":
                raise
            _repeated(put)

    def exists(self, key: str) -> bool:
        """Return whether there is an object at `key`."""
        try:
            return bool(self.filesystem.info(self._path(key))["type"] == "file")
        except FileNotFoundError:
            return False

    def objects(self, prefix: str) -> list[StoredObject]:
        """Return the objects below `prefix` ("" is the root)."""
        found = self.filesystem.find(self._path(prefix).rstrip("/") + "/", detail=True)
        return [
            StoredObject(path.removeprefix(self.root).lstrip("/"), int(info["size"]), _modified(info))
            for path, info in found.items()
        ]

    def delete(self, key: str) -> None:
        """Remove the object at `key`."""
        if self.exists(key):
            with suppress(FileNotFoundError):
                self.filesystem.rm_file(self._path(key))

    def _path(self, key: str) -> str:
        """Return the filesystem's path of `key`."""
        return f"{self.root}/{key}" if key else self.root

    def _put_options(self, size: int) -> dict[str, Any]:
        """Return the options that keep an S3 put of `size` bytes in one request and bound its time."""
        return {"chunksize": _SINGLE_PUT, "timeout": self.patience + size / _MIB} if self.protocol == "s3" else {}


Backend = LocalBackend | RemoteBackend
"""What Storage needs of a place. Every `key` is already checked; errors are raised as the library raises them."""


def _repeated(operation: Callable[[], Answer]) -> Answer:
    """Return the result of `operation`, repeated a few times if it fails in a way that botocore does not retry."""
    for repeat in range(_REPEATS):
        try:
            return operation()
        except storage_exceptions() as error:
            if not is_left_to_the_caller(error):
                raise
        time.sleep(_REPEAT_WAIT_S * 2**repeat)
    return operation()


def _modified(info: Mapping[str, Any]) -> float:
    """Return when an object was last written, if the filesystem says so, else 0."""
    when = info.get("LastModified") or info.get("mtime") or info.get("created")
    return float(when.timestamp()) if isinstance(when, datetime) else float(when or 0.0)


def _create_without_link(target: Path, data: bytes) -> bool:
    """Create `target` exclusively on a filesystem without hard links; a failed write leaves nothing behind."""
    try:
        stream = target.open("xb")
    except FileExistsError:
        return False
    try:
        with stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError:
        target.unlink(missing_ok=True)
        raise
    return True
