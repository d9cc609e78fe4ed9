"""A folder to hand on: it appears complete or not at all, and never replaces files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ospo_core.artifacts.atomic_write import atomic_folder
from ospo_core.artifacts.storage_errors import as_storage_error
from ospo_core.errors import ConfigError

CARD = "README.md"
"""Name of the card of a dataset or a model."""


def check_free(out: Path) -> None:
    """Check that a folder can be made at `out`.

    Raises:
        ConfigError: there is a file, or a folder that is not empty.
        StorageError: it cannot be read.
    """
    with as_storage_error("look at", str(out)):
        taken = out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir())))
    if taken:
        raise ConfigError(
            "is there already, and is not an empty folder",
            field="out",
            value=str(out),
            remedy="Name a new folder, or delete this one first",
        )


@contextmanager
def shared_folder(out: Path) -> Iterator[Path]:
    """Yield an empty folder to fill, which is `out` when the block ends without an error.

    Raises:
        ConfigError: there is something at `out` already.
        StorageError: the folder cannot be written.
    """
    check_free(out)
    with as_storage_error("write", str(out)), atomic_folder(out) as fresh:
        fresh.chmod(0o755)
        yield fresh
