"""Find a model's folder, check it, and know which family reads it, without importing anything heavy."""

from __future__ import annotations

import json
import re
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ospo_core
from ospo_core.errors import MissingModelError, ModelError
from ospo_core.models.hub import Repository, configuration, repository_of, snapshot
from ospo_core.models.libraries import check_libraries

if TYPE_CHECKING:
    from ospo_core.models.base import UnifiedModel

EMBEDDED_PREFIX = "embedded:"

FAMILIES = {
    "janus": "ospo_core.models.janus.model:JanusModel",
}
"""`model_type` of config.json to the subclass of `UnifiedModel` that implements it: one line per family."""

CONVERTERS = {
    "multi_modality": "ospo_core.models.janus.convert:convert_checkpoint",
}
"""`model_type` of another layout to the function that writes such a checkpoint in transformers' layout."""


def resolve_model(path: str, download: bool = True) -> Path:
    """Return the folder that a model path means.

    `embedded:NAME` is shipped with the package. Otherwise a local folder of that name is meant, and where there is
    none, `OWNER/NAME` is a repository of the Hugging Face Hub (`hub:OWNER/NAME` always is), which is downloaded once
    (without `download`, it must be in the hub's cache); `@REVISION` may follow.

    Raises:
        MissingModelError: there is no such folder or repository, or it cannot be downloaded.
        ModelError: there is no such embedded model, or the repository has another kind of model.
        StorageError: the hub's cache cannot be written.
    """
    if path.startswith(EMBEDDED_PREFIX):
        return _embedded(path)
    if (repository := repository_of(path)) is not None:
        first = configuration(repository, download)
        family_of(first)  # before gigabytes of another kind of model are downloaded
        return snapshot(Repository(repository.name, first.name), download)
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise MissingModelError(
            "no such folder",
            field="model.path",
            value=path,
            remedy="Give a local folder in transformers' format, OWNER/NAME of a Hugging Face repository, or "
            "embedded:shapes",
        )
    return folder


def _embedded(path: str) -> Path:
    """Return the folder of a model that is shipped with the package."""
    name = path.removeprefix(EMBEDDED_PREFIX)
    folder = Path(ospo_core.__file__).parent / name / "weights"
    if not name.isidentifier() or not (folder / "config.json").is_file():
        raise ModelError(
            "no such embedded model", field="model.path", value=path, remedy="Use embedded:shapes, or a local folder"
        )
    return folder


def check_folder(folder: Path) -> None:
    """Check that `folder` looks like a checkpoint of a known family in safetensors, before anything large is read.

    All that transformers would read must be in the folder and part of the model's digest.

    Raises:
        ModelError: what is missing or wrong, with the file that it concerns.
    """
    check_libraries()
    family_of(folder)
    check_weights(folder)
    if "transformers_weights" in read_config(folder):
        raise ModelError(
            "the configuration names another file with the weights",
            field=str(folder / "config.json"),
            remedy="Remove transformers_weights; model.safetensors or its index is read",
        )
    if (folder / "adapter_config.json").is_file():  # transformers would put that adapter into the network
        raise ModelError(
            "an adapter lies beside the model",
            field=str(folder / "adapter_config.json"),
            remedy="Merge it into the model, or move it elsewhere",
        )
    if not (folder / "tokenizer.json").is_file() and not (folder / "tokenizer.model").is_file():
        raise ModelError(
            "no tokenizer", field=str(folder), remedy="Copy tokenizer.json and tokenizer_config.json there"
        )


def check_weights(folder: Path) -> list[Path]:
    """Return the files with the weights of the model in `folder`: safetensors that lie in it, all of them there.

    Raises:
        ModelError: a file is missing, or the index names one that does not belong to the folder.
    """
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        files = sorted(file for file in folder.glob("*.safetensors") if not file.name.startswith("."))
        if not files:
            raise ModelError(
                "no safetensors weights",
                field=str(folder),
                value=sorted(file.name for file in folder.glob("*.bin")) or None,
                remedy="Pickled weights are not read: convert them to safetensors",
            )
        return files
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError("the index of the weights is damaged", field=str(index)) from error
    for name in names:
        if not isinstance(name, str) or re.fullmatch(r"\w[\w.-]*\.safetensors", name, re.ASCII) is None:
            raise ModelError(
                "the index names weights that are not safetensors files of this folder", field=str(index), value=name
            )
        if not (folder / name).is_file():
            raise ModelError(
                "weights that the index names are missing",
                field=str(folder),
                value=name,
                remedy="Copy or download the model again",
            )
    return [folder / name for name in names]


def family_of(folder: Path) -> str:
    """Return the family of a checkpoint, a key of `FAMILIES`: the `model_type` of its config.json.

    Raises:
        ModelError: there is no readable config.json, or it names no known family.
    """
    model_type = str(read_config(folder).get("model_type"))
    if model_type not in FAMILIES:
        known = " or ".join(name.capitalize() for name in FAMILIES)
        convert = f"Convert it first: `ospo model convert {folder} OUT`"
        raise ModelError(
            f"not a {known} model",
            field=f"{folder / 'config.json'}: model_type",
            value=model_type,
            remedy=convert if model_type in CONVERTERS else f"Use a {known} checkpoint",
        )
    return model_type


def read_config(folder: Path) -> dict[str, Any]:
    """Return the contents of config.json.

    Raises:
        ModelError: there is no such file, or it is not a JSON object.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise ModelError("no config.json", field=str(folder), remedy="Give a folder in transformers' format")
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        stored = None
    if not isinstance(stored, dict):
        raise ModelError("config.json is not a JSON object", field=str(file))
    return stored


def model_class(folder: Path) -> type[UnifiedModel]:
    """Import and return the class that implements the family of the checkpoint in `folder`.

    Raises:
        ModelError: there is no readable config.json, or it names no known family.
    """
    found: type[UnifiedModel] = _imported(FAMILIES[family_of(folder)])
    return found


def convert_model(source: Path, out: Path) -> Path:
    """Write the checkpoint `source`, which is in another layout, to the new folder `out` in transformers' layout.

    Raises:
        ModelError: `source` is in no layout that can be converted, or not complete, or `out` is not empty.
        StorageError: `out` cannot be written.
    """
    model_type = str(read_config(source).get("model_type"))
    if model_type not in CONVERTERS:
        raise ModelError(
            "not in a layout that can be converted",
            field=f"{source / 'config.json'}: model_type",
            value=model_type,
            remedy=f"Convertible is {' or '.join(CONVERTERS)}; others are used as they are, see `ospo model check`",
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ModelError("is not empty", field=str(out), remedy="Name a folder that does not exist yet")
    written: Path = _imported(CONVERTERS[model_type])(source, out)
    return written


def _imported(place: str) -> Any:
    """Import what `module:name` names."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
