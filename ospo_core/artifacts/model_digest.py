"""The identity of a model folder: one digest of everything that changes what the model computes."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path, PurePath

from ospo_core.artifacts.ids import digest_of, file_sha256
from ospo_core.errors import ModelError

MODEL_SUFFIXES = frozenset({".json", ".safetensors", ".model", ".txt", ".jinja"})
"""Suffixes of the files of a model folder that are its identity: configuration, tokenizer and weights."""


def model_digest(folder: Path) -> str:
    """Return the sha256 (hex) of the configuration, tokenizer and safetensors files directly in `folder`.

    It covers file names and contents, not times, other files or the folder's own name. A file is read again only if its
    size or modification time has changed since this process last read it.

    Raises:
        ModelError: `folder` is not a folder or cannot be read, or config.json or the weights are missing.
    """
    if not (folder / "config.json").is_file():
        remedy = "Give a model folder in transformers' format"
        raise ModelError("is not a model folder: no config.json", field=str(folder), remedy=remedy)
    try:
        files = sorted(path for path in folder.iterdir() if is_part(path.name) and path.is_file())
        if not any(path.suffix == ".safetensors" for path in files):
            raise ModelError("has no *.safetensors file", field=str(folder), remedy="Save the model with safetensors")
        return digest_of([[path.name, _digest_of(path)] for path in files])
    except OSError as error:
        remedy = "Check the folder's permissions and its disk"
        raise ModelError(f"cannot be read: {error.strerror}", field=str(error.filename), remedy=remedy) from error
    except UnicodeEncodeError as error:
        raise ModelError("has a file whose name is not UTF-8", field=str(folder), remedy="Rename the file") from error


def is_part(name: str) -> bool:
    """Return whether a file of this name, directly in a model's folder, is part of the model's digest."""
    return PurePath(name).suffix in MODEL_SUFFIXES and not name.startswith(".")


def _digest_of(path: Path) -> str:
    """Return the sha256 of a file, read only if it has changed since this process last read it."""
    status = path.stat()
    return _digest_of_version(path.resolve(), status.st_size, status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=256)
def _digest_of_version(path: Path, size: int, changed: int, inode: int) -> str:
    """Return the sha256 of the file `path`; the other arguments only distinguish its versions."""
    return file_sha256(path)
