"""Where bytes are kept: a local folder (temp + fsync + rename) or any fsspec filesystem such as S3 (one put)."""

from __future__ import annotations

import builtins
import errno
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar, cast

from fsspec import AbstractFileSystem

from ospo_core.artifacts.atomic_write import draft_file, is_draft
from ospo_core.artifacts.storage_errors import response_code, tried_again

Answer = TypeVar("Answer")

_SINGLE_PUT = 5 * 2**30
_TAKEN = {"PreconditionFailed", "412"}
_WRITER = "ospo-writer"
_SHARE_FOR_TRIES = 0.25
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


@dataclass(frozen=True)
class StoredObject:
    """One object: its key, its size in bytes, and when it was last written (seconds since 1970)."""

    key: str
    size: int
    modified: float


class Backend(Protocol):
    """What Storage needs of a place; every `key` is already checked. Failures are raised as they come."""

    def address(self, key: str) -> str:
        """Return the full address of `key`."""

    def read(self, key: str) -> bytes:
        """Return the bytes at `key`."""

    def open(self, key: str) -> BinaryIO:
        """Open `key` for reading."""

    def write(self, key: str, data: bytes) -> None:
        """Put `data` at `key`, replacing what is there, wholly or not at all."""

    def create(self, key: str, data: bytes) -> bool:
        """Put `data` at `key` unless something is there; return whether this call did."""

    def upload(self, source: Path, key: str) -> None:
        """Copy the local file `source` to `key` without holding it in memory."""

    def exists(self, key: str) -> bool:
        """Return whether there is an object at `key`."""

    def list(self, prefix: str) -> list[str]:
        """Return the keys below the folder `prefix` ("" is the root), in any order."""

    def details(self, prefix: str) -> builtins.list[StoredObject]:
        """Return the objects below the folder `prefix` with size and time, unfinished ones too, in any order."""

    def delete(self, key: str) -> None:
        """Remove `key`; nothing there is no error."""


class LocalBackend:
    """A folder of this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def address(self, key: str) -> str:
        """Return the absolute path of `key`."""
        return str(self.root / key) if key else str(self.root)

    def read(self, key: str) -> bytes:
        """Return the bytes at `key`."""
        return (self.root / key).read_bytes()

    def open(self, key: str) -> BinaryIO:
        """Open `key` for reading."""
        return (self.root / key).open("rb")

    def write(self, key: str, data: bytes) -> None:
        """Write a temporary file beside `key`, flush it to the disk, and rename it into place."""
        with draft_file(self.root / key) as draft:
            _write_flushed(draft, data)
            draft.replace(self.root / key)
            _flush_folder(draft.parent)

    def create(self, key: str, data: bytes) -> bool:
        """Write a temporary file and link it to `key`, which fails if `key` is there: readers never see half of it."""
        target = self.root / key
        if target.exists():
            return False
        with draft_file(self.root / key) as draft:
            _write_flushed(draft, data)
            try:
                os.link(draft, target)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_HARD_LINKS:
                    raise
                return _create_without_link(target, data)
            _flush_folder(draft.parent)
        return True

    def upload(self, source: Path, key: str) -> None:
        """Copy `source` to a temporary file beside `key` and rename it into place."""
        with draft_file(self.root / key) as draft:
            shutil.copyfile(source, draft)
            with draft.open("rb+") as stream:
                os.fsync(stream.fileno())
            draft.replace(self.root / key)

    def exists(self, key: str) -> bool:
        """Return whether there is a file at `key`."""
        return (self.root / key).is_file()

    def list(self, prefix: str) -> list[str]:
        """Return the keys of the files below `prefix`, without unfinished ones."""
        files = (path for path in (self.root / prefix).rglob("*") if path.is_file() and not is_draft(path))
        return [path.relative_to(self.root).as_posix() for path in files]

    def details(self, prefix: str) -> builtins.list[StoredObject]:
        """Return the files below `prefix` with size and time, unfinished ones too, without what vanishes meanwhile."""
        found: builtins.list[StoredObject] = []
        for path in (self.root / prefix).rglob("*"):
            with suppress(FileNotFoundError):
                status = path.stat()
                if path.is_file():
                    key = path.relative_to(self.root).as_posix()
                    found.append(StoredObject(key, status.st_size, status.st_mtime))
        return found

    def delete(self, key: str) -> None:
        """Remove the file at `key`."""
        (self.root / key).unlink(missing_ok=True)


class RemoteBackend:
    """A folder of an fsspec filesystem whose single put is atomic, as S3's is.

    A request that fails in passing (5xx, no answer, an answer cut short) is made again. Its first answer may be all
    that was lost, so every operation here may be done twice: a put puts the same bytes, a delete finds nothing, an
    upload starts from its beginning, and `create` knows its own object by a mark.

    Args:
        filesystem: the fsspec filesystem.
        root: `bucket/prefix`, without the protocol.
        protocol: `s3`.
        patience: seconds that a put may take before it counts as not answered, beside a second for each MiB. The
            library's own timeouts do not cover a server that takes the connection and never asks for the body. No
            new try is begun after a quarter of it.
    """

    def __init__(self, filesystem: AbstractFileSystem, root: str, protocol: str, patience: float) -> None:
        self.filesystem, self.root, self.protocol, self.patience = filesystem, root.strip("/"), protocol, patience

    def address(self, key: str) -> str:
        """Return `s3://bucket/prefix/key`."""
        return f"{self.protocol}://{self._path(key)}"

    def read(self, key: str) -> bytes:
        """Return the bytes at `key`, in one request."""
        return cast(bytes, self._again(lambda: self.filesystem.cat_file(self._path(key))))

    def open(self, key: str) -> BinaryIO:
        """Open `key` for reading, block by block; the filesystem itself reads a block again where that failed."""
        return cast(BinaryIO, self._again(lambda: self.filesystem.open(self._path(key), "rb")))

    def write(self, key: str, data: bytes) -> None:
        """Put `data` in one request (several above S3's 5 GiB)."""
        self._again(lambda: self.filesystem.pipe_file(self._path(key), data, **self._put_options(len(data))))

    def create(self, key: str, data: bytes) -> bool:
        """Put `data` in one conditional request; an object with this call's mark is its own, whose answer was lost."""
        mark = uuid.uuid4().hex
        options = {**self._put_options(len(data)), **({"Metadata": {_WRITER: mark}} if self.protocol == "s3" else {})}

        def put() -> bool:
            try:
                self.filesystem.pipe_file(self._path(key), data, mode="create", **options)
            except OSError as error:
                if not isinstance(error, FileExistsError) and response_code(error) not in _TAKEN:
                    raise
                return self.protocol == "s3" and self._mark_of(key) == mark
            return True

        return self._again(put)

    def upload(self, source: Path, key: str) -> None:
        """Copy the local file `source`, in parts where it is large; from the beginning where that failed in passing."""
        options = {"timeout": self.patience + source.stat().st_size / 2**20} if self.protocol == "s3" else {}
        self._again(lambda: self.filesystem.put_file(str(source), self._path(key), **options))

    def exists(self, key: str) -> bool:
        """Return whether there is an object at `key`."""
        try:
            return bool(self._again(lambda: self.filesystem.info(self._path(key)))["type"] == "file")
        except FileNotFoundError:
            return False

    def list(self, prefix: str) -> list[str]:
        """Return the keys below `prefix`."""
        paths = self._again(lambda: self.filesystem.find(self._path(prefix).rstrip("/") + "/"))
        return [path.removeprefix(self.root).lstrip("/") for path in paths]

    def details(self, prefix: str) -> builtins.list[StoredObject]:
        """Return the objects below `prefix` with size and time."""
        found = self._again(lambda: self.filesystem.find(self._path(prefix).rstrip("/") + "/", detail=True))
        return [
            StoredObject(path.removeprefix(self.root).lstrip("/"), int(info["size"]), _modified(info))
            for path, info in found.items()
        ]

    def delete(self, key: str) -> None:
        """Remove the object at `key`."""
        if self.exists(key):
            try:
                self._again(lambda: self.filesystem.rm_file(self._path(key)))
            except FileNotFoundError:
                return

    def _again(self, operation: Callable[[], Answer]) -> Answer:
        """Do `operation`, and again where it fails in passing."""
        return tried_again(operation, self.patience * _SHARE_FOR_TRIES)

    def _mark_of(self, key: str) -> str | None:
        """Return the mark of the writer who created the object at `key`; None where it has none, or is gone again."""
        try:
            return cast("str | None", self._again(lambda: self.filesystem.metadata(self._path(key))).get(_WRITER))
        except FileNotFoundError:
            return None

    def _path(self, key: str) -> str:
        """Return the filesystem's path of `key`."""
        return f"{self.root}/{key}" if key else self.root

    def _put_options(self, size: int) -> dict[str, Any]:
        """Return the options that keep an S3 put of `size` bytes in one request and bound its time."""
        if self.protocol != "s3":
            return {}
        return {"chunksize": _SINGLE_PUT, "timeout": self.patience + size / 2**20}


def _modified(info: Mapping[str, Any]) -> float:
    """Return when an object was last written, as far as the filesystem says; 0 where it does not."""
    when = info.get("LastModified") or info.get("mtime") or info.get("created")
    return float(when.timestamp()) if isinstance(when, datetime) else float(when or 0.0)


def _write_flushed(path: Path, data: bytes) -> None:
    """Write `data` to `path` and wait until the disk has it."""
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _flush_folder(folder: Path) -> None:
    """Wait until the disk has the names in `folder`."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _create_without_link(target: Path, data: bytes) -> bool:
    """Create `target` exclusively on a filesystem without hard links; a failed write leaves nothing."""
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
