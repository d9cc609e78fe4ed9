"""The lock of a training folder: if two rounds need the same training, the second waits for the first.

The lock belongs to an open file that the training process inherits. If a runner is killed, its training process holds
the lock until it has noticed and stopped, so the next runner's process never meets it.

Own code because the library filelock does not let a child process inherit its lock.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)

_held: dict[Path, int] = {}


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`, a file beside it, while the block runs; wait for the current holder.

    Raises:
        OSError: the lock file cannot be created, e.g. on a full disk.
    """
    path = folder.with_name(f"{folder.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _acquired(path)
    _held[folder] = descriptor
    try:
        yield
    finally:
        del _held[folder]
        if not folder.exists():
            path.unlink(missing_ok=True)
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def lock_descriptors(folder: Path) -> tuple[int, ...]:
    """Return the file descriptors that a process working in `folder` must inherit: the lock's, if held here."""
    return (_held[folder],) if folder in _held else ()


def _acquired(path: Path) -> int:
    """Return the descriptor of the lock once it is ours; a lock file removed in the meantime does not count."""
    warned = False
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except BlockingIOError:
            if not warned:
                logger.warning("another process trains in %s; waiting for it to end", path.with_suffix(""))
            warned = True
        os.close(descriptor)
        time.sleep(0.1)
