"""Find a model's folder, check it, and know which family reads it, without importing anything heavy."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import ospo_core
from ospo_core.errors import MissingModelError, ModelError

if TYPE_CHECKING:
    from ospo_core.models.base import UnifiedModel

EMBEDDED_PREFIX = "embedded:"

FAMILIES = {
    "janus": "ospo_core.models.janus.model:JanusModel",
}
"""`model_type` of config.json to the subclass of `UnifiedModel` that implements it: one line per family."""


def resolve_model(path: str) -> Path:
    """Return the folder that a model path means: `embedded:NAME` is shipped with the package, else a local folder.

    Raises:
        ModelError: there is no such folder.
    """
    if path.startswith(EMBEDDED_PREFIX):
        name = path.removeprefix(EMBEDDED_PREFIX)
        folder = Path(ospo_core.__file__).parent / name / "weights"
        if not name.isidentifier() or not (folder / "config.json").is_file():
            raise ModelError(
                "no such embedded model",
                field="model.path",
                value=path,
                remedy="Use embedded:shapes, or a local folder",
            )
        return folder
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise MissingModelError(
            "no such folder",
            field="model.path",
            value=path,
            remedy="Give a local folder in transformers' format, or embedded:shapes",
        )
    return folder


def check_folder(folder: Path) -> None:
    """Check that `folder` looks like a checkpoint of a known family in safetensors, before anything large is read.

    Raises:
        ModelError: what is missing or wrong, with the file that it concerns.
    """
    family_of(folder)
    if not any(folder.glob("*.safetensors")):
        raise ModelError(
            "no safetensors weights",
            field=str(folder),
            value=sorted(file.name for file in folder.glob("*.bin")) or None,
            remedy="Pickled weights are not read: convert them to safetensors",
        )
    if not (folder / "tokenizer.json").is_file() and not (folder / "tokenizer.model").is_file():
        raise ModelError(
            "no tokenizer", field=str(folder), remedy="Copy tokenizer.json and tokenizer_config.json there"
        )


def family_of(folder: Path) -> str:
    """Return the family of a checkpoint, a key of `FAMILIES`: the `model_type` of its config.json.

    Raises:
        ModelError: there is no readable config.json, or it names no known family.
    """
    config_file = folder / "config.json"
    if not config_file.is_file():
        raise ModelError("no config.json", field=str(folder), remedy="Give a folder in transformers' format")
    try:
        model_type = json.loads(config_file.read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError) as error:
        raise ModelError("config.json is not a JSON object", field=str(config_file)) from error
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        known = " or ".join(name.capitalize() for name in FAMILIES)
        raise ModelError(
            f"not a {known} model",
            field=f"{config_file}: model_type",
            value=model_type,
            remedy=f"Use a {known} checkpoint",
        )
    return model_type


def model_class(folder: Path) -> type[UnifiedModel]:
    """Import and return the class that implements the family of the checkpoint in `folder`.

    Raises:
        ModelError: there is no readable config.json, or it names no known family.
    """
    module, _, name = FAMILIES[family_of(folder)].partition(":")
    found: type[UnifiedModel] = getattr(import_module(module), name)
    return found
