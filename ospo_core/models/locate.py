"""Find a model's folder and check that it can be a Janus, without importing anything heavy."""

from __future__ import annotations

import json
from pathlib import Path

import ospo_core
from ospo_core.errors import ModelError

EMBEDDED_PREFIX = "embedded:"
JANUS = "janus"
"""`model_type` of the configuration of a Janus in transformers."""


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
        raise ModelError(
            "no such folder",
            field="model.path",
            value=path,
            remedy="Give a local folder in transformers' format, or embedded:shapes",
        )
    return folder


def check_folder(folder: Path) -> None:
    """Check that `folder` looks like a Janus checkpoint in safetensors, before anything large is read.

    Raises:
        ModelError: what is missing or wrong, with the file it concerns.
    """
    config_file = folder / "config.json"
    if not config_file.is_file():
        raise ModelError("no config.json", field=str(folder), remedy="Give a folder in transformers' format")
    try:
        model_type = json.loads(config_file.read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError) as error:
        raise ModelError("config.json is not a JSON object", field=str(config_file)) from error
    if model_type != JANUS:
        raise ModelError(
            "not a Janus model", field=f"{config_file}: model_type", value=model_type, remedy="Use a Janus checkpoint"
        )
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
