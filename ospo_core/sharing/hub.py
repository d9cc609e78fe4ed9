"""Upload of an exported folder to the Hugging Face Hub, only where a person asks for it.

`HF_TOKEN`, `HF_ENDPOINT` and `hf auth login` mean what they mean everywhere.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from ospo_core.errors import ConfigError, StorageError, redact

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def check_repository(name: str) -> None:
    """Check the name of a repository before any work.

    Raises:
        ConfigError: it is not of the form OWNER/NAME.
    """
    if _REPOSITORY.fullmatch(name) is None:
        raise ConfigError("is not of the form OWNER/NAME", field="--push", value=name, remedy="E.g. --push me/pairs")


def push(folder: Path, repository: str, kind: Literal["dataset", "model"], public: bool = False) -> str:
    """Upload a folder to a repository, which is created if needed, and return its address.

    Args:
        folder: a complete exported folder.
        repository: OWNER/NAME.
        kind: what it is.
        public: whether a repository that is created now can be read by everybody.

    Raises:
        StorageError: the hub cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi, errors

    api = HfApi()
    try:
        address = api.create_repo(repository, repo_type=kind, private=not public, exist_ok=True)
        api.upload_folder(folder_path=folder, repo_id=repository, repo_type=kind, commit_message="Upload by OSPO")
    except (OSError, ValueError, errors.HTTPError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise StorageError(
            f"cannot be uploaded: {redact(reason)}",
            field=f"--push {repository}",
            remedy=f"Check the network, the name, and `hf auth login` or HF_TOKEN; the folder is complete: {folder}",
        ) from error
    return str(address)
