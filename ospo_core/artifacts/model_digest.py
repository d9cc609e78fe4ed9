"""The identity of a model folder: one digest of everything that changes what the model computes."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from ospo_core.artifacts.ids import digest_of, file_sha256
from ospo_core.errors import ModelError

MODEL_SUFFIXES = frozenset({".json", ".safetensors", ".model", ".txt", ".jinja"})
"""Suffixes of the files of a model folder that are its identity: configuration, tokenizer and weights."""


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
    read = (path for path in folder.iterdir() if path.suffix in MODEL_SUFFIXES and not path.name.startswith("."))
    files = sorted(path for path in read if path.is_file())
    if not any(path.suffix == ".safetensors" for path in files):
        raise ModelError("has no *.safetensors file", field=str(folder), remedy="Save the model with safetensors")
    digests = []
    for path in files:
        status = path.stat()
        digest = _digest_of_version(path.resolve(), status.st_size, status.st_mtime_ns, status.st_ino)
        digests.append([path.name, digest])
    return digest_of(digests)


@lru_cache(maxsize=256)
def _digest_of_version(path: Path, size: int, changed: int, inode: int) -> str:
    """Return the sha256 of the file `path`; the other arguments only distinguish its versions."""
    return file_sha256(path)
