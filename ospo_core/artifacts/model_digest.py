"""The identity of a model folder: one digest of everything that changes what the model computes."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from ospo_core.artifacts.ids import digest_of
from ospo_core.errors import ModelError

_BLOCK = 1 << 20
_SUFFIXES = {".json", ".safetensors", ".model", ".txt", ".jinja"}


def model_digest(folder: Path) -> str:
    """Return the sha256 (hex) of the configuration, tokenizer and safetensors files directly in `folder`.

    It covers file names and contents, not times, other files or the folder's own name. A file is read again only if its
    size or modification time has changed since this process last read it.

    Raises:
        ModelError: `folder` is not a folder, or config.json or the weights are missing.
    """
    if not (folder / "config.json").is_file():
        remedy = "Give a model folder in transformers' format"
        raise ModelError("is not a model folder: no config.json", field=str(folder), remedy=remedy)
    files = sorted(path for path in folder.iterdir() if path.is_file() and _counts(path))
    if not any(path.suffix == ".safetensors" for path in files):
        raise ModelError("has no *.safetensors file", field=str(folder), remedy="Save the model with safetensors")
    return digest_of([[path.name, _file_digest(path)] for path in files])


def _counts(path: Path) -> bool:
    """Return whether the file `path` can change what the model computes."""
    return path.suffix in _SUFFIXES and not path.name.startswith(".")


def _file_digest(path: Path) -> str:
    """Return the sha256 of a file, cached by its size and modification time."""
    resolved = path.resolve()
    status = resolved.stat()
    return _digest_of_version(resolved, status.st_size, status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=256)
def _digest_of_version(path: Path, size: int, changed: int, inode: int) -> str:
    """Return the sha256 of the file `path`; the other arguments only distinguish its versions."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
