"""Which model a round starts from: named once, found again on any machine."""

from __future__ import annotations

from pathlib import Path

from ospo_core.artifacts.model_digest import model_digest
from ospo_core.artifacts.storage import Storage
from ospo_core.config import RoundConfig
from ospo_core.config.sections import Section
from ospo_core.errors import ModelError
from ospo_core.stages.model_pointer import CURRENT, current_model

STORED = "stored:"
"""Prefix of a source that is a folder of the artifact storage, e.g. `stored:models/<digest>`."""


class ModelRef(Section):
    """A model by content: `digest` identifies it, `source` says where to find it."""

    digest: str
    source: str


def stored_ref(digest: str, key: str) -> ModelRef:
    """Return the reference to a model folder in the artifact storage."""
    return ModelRef(digest=digest, source=f"{STORED}{key}")


def starting_model(config: RoundConfig, storage: Storage) -> ModelRef:
    """Return the model that `config.model.path` names: `current` (last promoted), embedded, or a local folder.

    Raises:
        ModelError: there is no such model, or the folder is not a whole Janus checkpoint.
    """
    if config.model.path == CURRENT:
        pointer = current_model(storage)
        if pointer is None:
            raise ModelError(
                "no model has been promoted in this storage yet",
                field="model.path",
                value=CURRENT,
                remedy="Run a round from a named model first",
            )
        return stored_ref(pointer.digest, pointer.key)
    from ospo_core.models.locate import check_folder, resolve_model

    folder = resolve_model(config.model.path)
    check_folder(folder)
    return ModelRef(digest=model_digest(folder), source=config.model.path)


def model_folder(ref: ModelRef, storage: Storage, scratch: Path) -> Path:
    """Return a local folder with the model, fetching it from storage into `scratch/models/<digest>` if need be.

    Raises:
        ModelError: the folder is not there, or its content is not what the reference says.
        StorageError: the stored folder cannot be read.
    """
    from ospo_core.models.locate import resolve_model

    if not ref.source.startswith(STORED):
        return _verified(resolve_model(ref.source), ref)
    local = scratch / "models" / ref.digest
    if not (local / "config.json").is_file() or model_digest(local) != ref.digest:
        storage.get_folder(ref.source.removeprefix(STORED), local)
    return _verified(local, ref)


def _verified(folder: Path, ref: ModelRef) -> Path:
    found = model_digest(folder)
    if found != ref.digest:
        raise ModelError(
            "the model's files are not those the round started with",
            field=str(folder),
            value=found[:12],
            remedy=f"Restore the model with digest {ref.digest[:12]}, or start the round anew",
        )
    return folder
