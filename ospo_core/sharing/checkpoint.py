"""A trained checkpoint as a folder to hand on: the merged model, its adapter in `adapter/`, and a model card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.model_digest import model_digest
from ospo_core.artifacts.storage import Storage
from ospo_core.errors import ModelError
from ospo_core.schema import StageName
from ospo_core.sharing.cards import model_card
from ospo_core.sharing.folder import CARD, check_free, shared_folder

ADAPTER = "adapter"


def export_checkpoint(storage: Storage, manifests: Sequence[Manifest], training: Manifest, out: Path) -> Path:
    """Write a trained model into the new folder `out`, and return the folder.

    Args:
        storage: holds the model.
        manifests: all results of the storage, among which its evaluation is looked for.
        training: the training that made it.
        out: a new or empty folder.

    Raises:
        ModelError: the stored model is not the one that was trained.
        ConfigError: there is something at `out` already.
        StorageError: the model cannot be read, or the folder cannot be written.
    """
    from ospo_core.models.locate import model_class

    check_free(out)
    digest = str(training.extra["model_digest"])
    tests = [one for one in manifests if one.stage is StageName.EVALUATION and one.extra.get("child") == digest]
    with shared_folder(out) as folder:
        storage.get_folder(str(training.extra["merged"]), folder)
        found = model_digest(folder)
        if found != digest:
            raise ModelError(
                "the stored model is not the one that was trained",
                field=storage.uri(str(training.extra["merged"])),
                value=found[:12],
                remedy="Train it again with `ospo round --refresh training`",
            )
        network = model_class(folder).network_class.__name__
        storage.get_folder(str(training.extra["adapter"]), folder / ADAPTER)
        card = model_card(digest, training, tests[-1] if tests else None, network)
        (folder / CARD).write_text(card, encoding="utf-8")
    return out
