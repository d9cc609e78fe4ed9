"""Which model a round starts from, and which model of a storage is the current one.

The current model is named by `models/current.json`, which changes only on promotion, atomically.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import ValidationError, field_validator

from ospo_core.artifacts.addresses import StorageKey, is_key
from ospo_core.artifacts.checksummed_json import damaged, dump_checksummed
from ospo_core.artifacts.ids import Digest
from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.model_digest import model_digest
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.storage_errors import MissingObjectError
from ospo_core.config import RoundConfig
from ospo_core.config.sections import Section
from ospo_core.errors import ModelError
from ospo_core.stages.attempts import read_record_file

CURRENT = "current"
"""Value of `model.path` that means the current model of the storage."""

STORED = "stored:"
"""Prefix of a source that is a folder of the artifact storage, e.g. `stored:models/<digest>`."""

Role = Literal["writer", "judge"]
"""What another model than the one that draws may do in a round: write its texts, or judge its pictures."""
ROLES: tuple[Role, ...] = ("writer", "judge")

POINTER_KEY = "models/current.json"

MODEL_DIGEST, MERGED, PARENT_SOURCE = "model_digest", "merged", "parent_source"
"""Names among the extra facts of a training: the digest of its model, the model's folder, the source of its parent."""


class ModelRef(Section):
    """A model: `digest` identifies its content, `source` says where to find it."""

    digest: Digest
    source: str

    @field_validator("source")
    @classmethod
    def _stays_in_the_storage(cls, source: str) -> str:
        if source.startswith(STORED) and not is_key(source.removeprefix(STORED)):
            raise ValueError(f"{STORED} is followed by a folder of the artifact storage")
        return source

    @property
    def is_stored(self) -> bool:
        """Whether it lies in the artifact storage, where trainings put their models."""
        return self.source.startswith(STORED)


def stored_ref(digest: str, key: str) -> ModelRef:
    """Return the reference to a model folder in the artifact storage."""
    return ModelRef(digest=digest, source=f"{STORED}{key}")


class Trained(Section):
    """What a finished training says: the `model` that it made, its folder `merged`, and the `parent` it started from.

    The parent's source is empty in manifests of earlier versions.
    """

    model: ModelRef
    merged: StorageKey
    parent: ModelRef


def trained(manifest: Manifest) -> Trained:
    """Return what the manifest of a finished training says.

    Raises:
        DamagedArtifactError: it names no models.
    """
    said = manifest.extra
    try:
        return Trained(
            model=stored_ref(said[MODEL_DIGEST], said[MERGED]),
            merged=said[MERGED],
            parent=ModelRef(digest=said["parent_digest"], source=said.get(PARENT_SOURCE, "")),
        )
    except (KeyError, ValidationError) as error:
        raise damaged(manifest.prefix, "its manifest does not say which model was made from which") from error


def trained_model(manifest: Manifest) -> ModelRef:
    """Return the model that a finished training made; errors are those of `trained`."""
    return trained(manifest).model


def starting_model(config: RoundConfig, storage: Storage, download: bool = True) -> ModelRef:
    """Return the model that `config.model.path` names: `current` (last promoted), embedded, a folder or a repository.

    A repository is pinned to the commit that it has now. Without `download`, it must be on this machine; with it, those
    of `model.writer` and `model.judge` are downloaded, too.

    Raises:
        MissingModelError: the folder or repository is not there.
        ModelError: there is no such model, or the folder is not a complete checkpoint.
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
    from ospo_core.models.hub import pinned
    from ospo_core.models.locate import check_folder, resolve_model

    if download:
        fetch_roles(config)
    folder = resolve_model(config.model.path, download)
    check_folder(folder)
    return ModelRef(digest=model_digest(folder), source=pinned(config.model.path, folder))


def named_model(config: RoundConfig, storage: Storage, path: str, download: bool = True) -> ModelRef:
    """Return the model that `path` names in the ways of `model.path`; errors are those of `starting_model`."""
    named = config.model.model_copy(update={"path": path, "writer": None, "judge": None})
    return starting_model(config.model_copy(update={"model": named}), storage, download)


def role_model(config: RoundConfig, storage: Storage, start: ModelRef, role: Role) -> ModelRef | None:
    """Return the model that `model.writer` or `model.judge` names; None if the starting model does this, too.

    A repository must be on this machine: see `fetch_roles`.

    Raises:
        ModelError: there is no such model, or it is of another kind than the one that draws.
    """
    path = _path_of(config, role)
    if path is None:
        return None
    with _as_role(role, path):
        found = named_model(config, storage, path, download=False)
    kind, drawing = _kind(found, storage), _kind(start, storage)
    if kind != drawing:
        raise ModelError(
            f"its kind is {kind}, that of the model that draws {drawing}, and model.family is the chat format of both",
            field=f"model.{role}",
            value=path,
            remedy="Name a model of the same kind",
        )
    return found


def fetch_roles(config: RoundConfig) -> None:
    """Download the repositories that `model.writer` and `model.judge` name, where they are not there yet.

    Raises:
        ModelError: there is no such model.
    """
    from ospo_core.models.locate import resolve_model

    for role in ROLES:
        path = _path_of(config, role)
        if path not in (None, CURRENT):
            with _as_role(role, path):
                resolve_model(path)


def _path_of(config: RoundConfig, role: Role) -> str | None:
    return config.model.writer if role == "writer" else config.model.judge


@contextmanager
def _as_role(role: Role, path: str) -> Iterator[None]:
    """Raise what is wrong with a model inside the block under the option that names it."""
    try:
        yield
    except ModelError as error:
        raise type(error)(error.problem, field=f"model.{role}", value=path, remedy=error.remedy) from error


def _kind(ref: ModelRef, storage: Storage) -> str:
    """Return the `model_type` of a model."""
    from ospo_core.models.locate import family_of, resolve_model

    if not ref.is_stored:
        return family_of(resolve_model(ref.source, download=False))
    key = f"{ref.source.removeprefix(STORED)}/config.json"
    try:
        return str(json.loads(storage.read(key))["model_type"])
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise damaged(key, "it does not say what kind of model it is") from error


def model_folder(ref: ModelRef, storage: Storage, scratch: Path) -> Path:
    """Return a local folder with the model, fetched from storage into `scratch/models/<digest>` if needed.

    Raises:
        ModelError: the folder does not exist, or its digest is another one.
        StorageError: the stored folder cannot be read.
    """
    from ospo_core.models.locate import resolve_model

    if not ref.is_stored:
        return _verified(resolve_model(ref.source), ref)
    local = scratch / "models" / ref.digest
    if not _holds(local, ref):
        key = ref.source.removeprefix(STORED)
        storage.get_folder(key, local, lambda fetched: _verified(fetched, ref, storage.uri(key)))
    return _verified(local, ref)


def _holds(folder: Path, ref: ModelRef) -> bool:
    """Return whether `folder` has the model `ref`, whole."""
    try:
        return model_digest(folder) == ref.digest
    except ModelError:  # there is no folder, or not all of it
        return False


def _verified(folder: Path, ref: ModelRef, name: str = "") -> Path:
    """Return `folder` if it holds the model `ref`; an error calls it `name`, by default its path."""
    found = model_digest(folder)
    if found != ref.digest:
        raise ModelError(
            "the model's files are not those the round started with",
            field=name or str(folder),
            value=found[:12],
            remedy=f"Restore the model with digest {ref.digest[:12]}, or start another round",
        )
    return folder


class ModelPointer(Section):
    """The current model and its origin.

    Args:
        digest: identity of the model.
        key: its folder in the storage.
        parent: digest of the model from which it was trained.
        training: fingerprint of the training that made it.
        evaluation: fingerprint of the evaluation that promoted it.
    """

    digest: Digest
    key: StorageKey
    parent: Digest
    training: Digest
    evaluation: Digest


class Promotion(Section):
    """The effect of a promotion decision on the pointer: whether it changed, and why or why not."""

    changed: bool
    reason: str


def current_model(storage: Storage) -> ModelPointer | None:
    """Return the pointer, or None if no model was ever promoted.

    Raises:
        DamagedArtifactError: the pointer is not what was written.
    """
    try:
        return read_record_file(storage, POINTER_KEY, ModelPointer, "promotion", checksum_required=False)
    except MissingObjectError:
        return None


def noted_model(storage: Storage, key: str) -> ModelRef | None:
    """Return the model that `note_model` wrote at `key`, or None if there is no note.

    Raises:
        DamagedArtifactError: the note is not what was written.
    """
    try:
        return read_record_file(storage, key, ModelRef, "run of the flow", checksum_required=False)
    except MissingObjectError:
        return None


def note_model(storage: Storage, key: str, model: ModelRef) -> None:
    """Write down a model for `noted_model`."""
    storage.write(key, dump_checksummed(model))


def promote(storage: Storage, pointer: ModelPointer) -> Promotion:
    """Make `pointer` the current model if the current one is its parent, or if there is none yet.

    A child was compared with its parent only, so it never replaces a third model. Repeating a promotion, as a
    restarted or cached round does, has no effect.
    """
    current = current_model(storage)
    if current is not None and current.digest == pointer.digest:
        return Promotion(changed=False, reason="it is the current model already")
    if current is not None and current.digest != pointer.parent:
        return Promotion(
            changed=False,
            reason=f"the current model {current.digest[:12]} is not the parent that it was compared with; "
            "start a round with model.path=current to build on it",
        )
    storage.write(POINTER_KEY, dump_checksummed(pointer))
    return Promotion(changed=True, reason="promoted")
