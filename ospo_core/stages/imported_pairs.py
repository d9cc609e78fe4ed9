"""Imported pairs of a training: whether they are there, and whether their image tokens are those of its model."""

from __future__ import annotations

from ospo_core.artifacts.manifest import load_manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.config.sections import TrainingConfig
from ospo_core.errors import ConfigError
from ospo_core.schema import StageName
from ospo_core.sharing.imported import OPTION, ImportedPairs, load_import
from ospo_core.stages.model_ref import trained


def find_imported(config: TrainingConfig, storage: Storage, model: str) -> ImportedPairs | None:
    """Return the imported pairs that a training of the model with this digest names, or None if it names none.

    Raises:
        ConfigError: the storage has no such import, or the model cannot be trained on them.
        DamagedArtifactError: their manifest is not what was written.
    """
    if config.imported_pairs is None:
        return None
    found = load_import(storage, config.imported_pairs)
    if found.model not in relatives(storage, model):
        raise ConfigError(
            f"these pairs have the image tokens of model {found.model[:12]}, which is no relative of {model[:12]}",
            field=OPTION,
            value=found.digest,
            remedy="Import them again with the `model.path` of this round",
        )
    if config.loss.w_cond and found.without_negative:
        raise ConfigError(
            f"{found.without_negative} of {found.rows} imported pairs have no negative_prompt, which this loss needs",
            field="training.loss.w_cond",
            value=config.loss.w_cond,
            remedy="Set training.loss.w_cond=0, or import pairs that all have one",
        )
    return found


def relatives(storage: Storage, model: str) -> frozenset[str]:
    """Return the digests of a model, its ancestors and descendants: all that trainings of this storage connect.

    Training changes the language model only, so all of them write and read the same image tokens.

    Raises:
        DamagedArtifactError: the manifest of a training is damaged.
    """
    name = StageName.TRAINING
    keys = [key for key in storage.list(name.value) if key.endswith("/manifest.json")]
    manifests = [load_manifest(storage, name, key.split("/")[-2], verify=False) for key in keys]
    made = [trained(one) for one in manifests if one is not None]
    links = [{one.model.digest, one.parent.digest} for one in made]
    found, before = {model}, 0
    while len(found) != before:
        before = len(found)
        found |= {digest for link in links if link & found for digest in link}
    return frozenset(found)
