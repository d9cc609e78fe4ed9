"""The current model of a storage root: `models/current.json`, changed only on promotion and atomically."""

from __future__ import annotations

import json

from pydantic import ValidationError

from ospo_core.artifacts.storage import Storage
from ospo_core.config.sections import Section
from ospo_core.errors import DamagedArtifactError

CURRENT = "current"
"""Value of `model.path` that means the model behind the pointer."""

POINTER_KEY = "models/current.json"


class ModelPointer(Section):
    """The current model and how it came to be.

    Args:
        digest: identity of the model.
        key: its folder in the storage.
        parent: digest of the model that it was trained from.
        training: fingerprint of the training that made it.
        evaluation: fingerprint of the evaluation that promoted it.
    """

    digest: str
    key: str
    parent: str
    training: str
    evaluation: str


class Promotion(Section):
    """What the gate's verdict did to the pointer: whether it changed, and why (not)."""

    changed: bool
    reason: str


def current_model(storage: Storage) -> ModelPointer | None:
    """Return the pointer, or None where no model was ever promoted.

    Raises:
        DamagedArtifactError: the pointer is not readable.
    """
    if not storage.exists(POINTER_KEY):
        return None
    try:
        return ModelPointer.model_validate_json(storage.read(POINTER_KEY))
    except (ValidationError, ValueError) as error:
        raise DamagedArtifactError(
            "the pointer to the current model is damaged",
            field=storage.uri(POINTER_KEY),
            remedy="Delete it; the next promotion writes it again",
        ) from error


def promote(storage: Storage, pointer: ModelPointer) -> Promotion:
    """Make `pointer` the current model if the current one is its parent, or if there is none yet.

    A child was compared with its parent only, so it never replaces a third model. Repeating a promotion, as a
    restarted or cached round does, changes nothing.
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
    storage.write(POINTER_KEY, json.dumps(pointer.model_dump(), indent=2, sort_keys=True).encode())
    return Promotion(changed=True, reason="promoted")
