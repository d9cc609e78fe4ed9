"""Write a file or a folder under a temporary name beside its place, and rename it into place once it is complete.

Own code because the library for it, atomicwrites, is no longer maintained and does not write folders.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath

_SUFFIX = ".tmp"


def is_temporary(path: PurePath) -> bool:
    """Return whether `path` is the unfinished work of one of the functions below."""
    return path.name.startswith(".") and path.suffix == _SUFFIX


@contextmanager
def temporary_file(target: Path) -> Iterator[Path]:
    """Yield a free path beside `target`, whose folder is created; a file left at that path is removed afterwards."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_path(target)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Yield a path to write to; when the block ends without an error, the file is on the disk and is `target`."""
    with temporary_file(target) as temporary:
        yield temporary
        flush_to_disk(temporary)
        temporary.replace(target)
        flush_to_disk(target.parent)


@contextmanager
def atomic_folder(target: Path, *, merge: bool = False) -> Iterator[Path]:
    """Yield an empty folder to fill; when the block ends without an error, it is on the disk and is `target`.

    A folder already there is replaced, or with `merge` kept while its files are replaced one by one, so that those who
    read it go on reading.
    """
    temporary = _temporary_path(target)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for path in [*temporary.rglob("*"), temporary]:
            flush_to_disk(path)
        if merge and target.exists():
            for path in sorted(path for path in temporary.rglob("*") if path.is_file()):
                place = target / path.relative_to(temporary)
                place.parent.mkdir(parents=True, exist_ok=True)
                path.replace(place)
        elif target.exists():
            former = _temporary_path(target)
            target.rename(former)
            try:
                temporary.replace(target)
            finally:
                shutil.rmtree(former, ignore_errors=True)
        else:
            temporary.replace(target)
        flush_to_disk(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def flush_to_disk(path: Path) -> None:
    """Wait until the disk holds the bytes of a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _temporary_path(target: Path) -> Path:
    """Return a new temporary path beside `target`."""
    return target.with_name(f".{target.name[:64]}.{uuid.uuid4().hex}{_SUFFIX}")
