"""Drafts: a folder or file is made under a temporary name and appears under its own name when it is complete."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def draft_path(target: Path) -> Path:
    """Return a new temporary path beside `target`."""
    return target.with_name(f".{target.name[:64]}.{uuid.uuid4().hex}.draft")


def is_draft(path: Path) -> bool:
    """Return whether `path` is the unfinished work of a writer."""
    return path.name.startswith(".") and path.suffix == ".draft"


@contextmanager
def draft_file(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`, whose folder is made; what still is there afterwards is removed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = draft_path(target)
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def draft_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `target` that becomes `target` when the block ends well, else disappears.

    Where `target` is there already, its files of the same names are replaced one by one and the others stay.
    """
    draft = draft_path(target)
    draft.mkdir(parents=True)
    try:
        yield draft
        if target.exists():
            _merge(draft, target)
        else:
            draft.replace(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _merge(draft: Path, target: Path) -> None:
    """Move the files below `draft` to the same places below `target`."""
    for source in sorted(path for path in draft.rglob("*") if path.is_file()):
        place = target / source.relative_to(draft)
        place.parent.mkdir(parents=True, exist_ok=True)
        source.replace(place)
