"""Checkpoints of the Hugging Face Hub: which paths name one, and how one commit of it gets onto this machine.

Only the data files that are a model's identity (`model_digest`) are downloaded, into the hub's own cache: no pickled
weights and no code. `HF_HUB_OFFLINE`, `HF_HOME`, `HF_TOKEN` and `HF_ENDPOINT` mean what they mean everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ospo_core.artifacts.model_digest import MODEL_SUFFIXES
from ospo_core.artifacts.storage_errors import disk_problem
from ospo_core.errors import MissingModelError, StorageError, redact

HUB_PREFIX = "hub:"
"""Prefix of a path that is a repository even where a folder of that name exists."""

_PART = r"[A-Za-z0-9][\w.-]*"
_REPOSITORY = re.compile(rf"(?P<name>{_PART}/{_PART})(?:@(?P<revision>[\w./-]+))?", re.ASCII)


class Repository(NamedTuple):
    """A repository of the hub; `revision` is a branch, a tag or a commit, and None the default branch."""

    name: str
    revision: str | None

    def __str__(self) -> str:
        return self.name if self.revision is None else f"{self.name}@{self.revision}"


def repository_of(path: str) -> Repository | None:
    """Return the repository that a model path names, or None if it means something else.

    `hub:OWNER/NAME` always names one, and `OWNER/NAME` unless there is a folder of that name; both may end in
    `@REVISION`.
    """
    named = _REPOSITORY.fullmatch(path.removeprefix(HUB_PREFIX))
    if named is None or (not path.startswith(HUB_PREFIX) and is_folder(Path(path))):
        return None
    return Repository(named["name"], named["revision"])


def is_folder(path: Path) -> bool:
    """Return whether there is such a folder; a name that no file system takes is none."""
    try:
        return path.is_dir()
    except OSError:  # a name that is too long
        return False


def pinned(path: str, folder: Path) -> str:
    """Return the model path that means the downloaded `folder` for ever: a repository's name and the commit."""
    repository = repository_of(path)
    return path if repository is None else f"{HUB_PREFIX}{repository.name}@{folder.name}"


def _first_line(error: Exception) -> str:
    """Return the first line of a message, or the error's class if it has none."""
    return next(iter(redact(str(error).strip()).splitlines()), type(error).__name__)


def configuration(repository: Repository, download: bool) -> Path:
    """Download config.json alone and return the folder of its commit, whose name is the commit.

    Without `download`, only the cache is searched.

    Raises:
        MissingModelError: it cannot be downloaded, or may not be and is not in the cache.
        StorageError: the cache cannot be written.
    """
    return _files(repository, ["config.json"], download)


def snapshot(repository: Repository, download: bool) -> Path:
    """Download configuration, tokenizer and safetensors weights, where they are not there yet; return their folder.

    Without `download`, only the cache is searched.

    Raises:
        MissingModelError: it cannot be downloaded, or may not be and is not in the cache.
        StorageError: the cache cannot be written.
    """
    return _files(repository, [f"*{suffix}" for suffix in sorted(MODEL_SUFFIXES)], download)


def _files(repository: Repository, patterns: list[str], download: bool) -> Path:
    """Return the folder with a repository's files that match; those in its subfolders belong to other formats."""
    from huggingface_hub import snapshot_download

    with _as_model_error(repository, download):
        found = snapshot_download(
            repository.name,
            revision=repository.revision,
            allow_patterns=patterns,
            ignore_patterns=["*/*"],
            local_files_only=not download,
        )
    return Path(found)


@contextmanager
def _as_model_error(repository: Repository, download: bool) -> Iterator[None]:
    """Raise the hub client's errors inside the block as MissingModelError, or as StorageError if its disk is full."""
    from huggingface_hub import constants, errors

    try:
        yield
    except (OSError, ValueError, errors.HTTPError) as error:
        if problem := disk_problem(error):
            remedy = "Free space, or set HF_HOME to a folder on another disk"
            raise StorageError(problem, field=constants.HF_HUB_CACHE, remedy=remedy) from error
        if isinstance(error, errors.GatedRepoError):
            problem = "this repository is gated"
            remedy = "Accept its licence on its page, then run `hf auth login` or set HF_TOKEN"
        elif isinstance(error, errors.RepositoryNotFoundError):
            problem = "there is neither such a folder nor such a repository on the Hugging Face Hub"
            remedy = "Check the name; a private repository needs `hf auth login` or HF_TOKEN"
        elif isinstance(error, errors.RevisionNotFoundError):
            problem, remedy = "the repository has no such revision", "Name a branch, a tag or a commit after the @"
        elif constants.HF_HUB_OFFLINE or not download:
            cause = ", and HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else ""
            problem = f"there is no such folder, and the repository is not in the Hugging Face cache{cause}"
            remedy = f"Download it once with `hf download {repository.name}`, or give a local folder"
        else:
            problem = f"it cannot be downloaded from {constants.ENDPOINT}: {_first_line(error)}"
            remedy = "Check the network; run again to go on with the download, or give a local folder"
        raise MissingModelError(problem, field="model.path", value=str(repository), remedy=remedy) from error
