"""Find a model's folder, check it, and know which family reads it, without importing anything heavy."""

from __future__ import annotations

import json
import re
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ospo_core
from ospo_core.artifacts.model_digest import is_part
from ospo_core.errors import MissingModelError, ModelError
from ospo_core.models.hub import Repository, configuration, is_folder, repository_of, snapshot
from ospo_core.models.libraries import check_libraries

if TYPE_CHECKING:
    from ospo_core.models.base import UnifiedModel

EMBEDDED_PREFIX = "embedded:"

MOST = 2**40
"""The largest number that a model's configuration may state; `max_position_embeddings` is the largest that any does."""
MOST_PARTS = 2000
"""The most layers, blocks or labels that it may state; each is built in Python."""
_NEVER_OPENED = frozenset(
    {"special_tokens_map_file", "added_tokens_file", "tokenizer_config_file", "chat_template_file"}
)
"""What old tokenizers state of the folder in which they were saved; transformers looks for these files itself."""
_COUNTS = frozenset({"num_hidden_layers", "depth", "num_res_blocks", "num_labels"})

FAMILIES = {
    "janus": "ospo_core.models.janus.model:JanusModel",
    "emu3": "ospo_core.models.emu3.model:Emu3Model",
}
"""`model_type` of config.json to the subclass of `UnifiedModel` that implements it: one line per family."""

LANGUAGE_MODELS = {
    "janus": "llama",
    "emu3": "emu3_text_model",
}
"""Family to the `model_type` of the language model inside: others may bring parts that are loaded from elsewhere."""

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
    try:
        folder = Path(path).expanduser()
    except RuntimeError:  # the home folder of nobody
        folder = Path(path)
    if not is_folder(folder):
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
    if not name.isidentifier() or not is_folder(folder):
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
    check_tokenizer(folder)
    if (generation := folder / "generation_config.json").is_file():
        _json_object(generation)
    if (folder / "adapter_config.json").is_file():  # transformers would put that adapter into the network
        raise ModelError(
            "an adapter lies beside the model",
            field=str(folder / "adapter_config.json"),
            remedy="Merge it into the model, or move it elsewhere",
        )


def check_weights(folder: Path) -> list[Path]:
    """Return the files with the weights of the model in `folder`: safetensors that lie in it, all of them there.

    Raises:
        ModelError: a file is missing, or the index names one that does not belong to the folder.
    """
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    named = _named_weights(folder, index) if index.is_file() else []
    files = [single] if single.is_file() else named  # as transformers: an index beside a single file is not read
    if not files:
        raise ModelError(
            "no safetensors weights",
            field=str(folder),
            value=sorted(file.name for kind in ("*.bin", "*.safetensors") for file in folder.glob(kind)) or None,
            remedy="Give model.safetensors, or several files with model.safetensors.index.json. Pickled weights are "
            "not read: convert them to safetensors",
        )
    return files


def _named_weights(folder: Path, index: Path) -> list[Path]:
    """Return the files that an index names; raises ModelError as `check_weights` does."""
    try:
        names = sorted(set(_json_object(index)["weight_map"].values()))
    except (ModelError, KeyError, TypeError, AttributeError) as error:
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


def check_tokenizer(folder: Path) -> None:
    """Check that there is a tokenizer, and that its configuration names only files of the folder.

    Raises:
        ModelError: there is none, or it names another file, which older versions of transformers would open.
    """
    if not (folder / "tokenizer.json").is_file() and not (folder / "tokenizer.model").is_file():
        raise ModelError(
            "no tokenizer", field=str(folder), remedy="Copy tokenizer.json and tokenizer_config.json there"
        )
    file = folder / "tokenizer_config.json"
    for option, value in (_json_object(file) if file.is_file() else {}).items():
        if option in _NEVER_OPENED or not option.endswith(("_file", "_files")) or not value:
            continue
        if value != Path(str(value)).name or not is_part(value):
            raise ModelError(
                "the tokenizer's configuration names files that are not the tokenizer's own",
                field=f"{file}: {option}",
                value=value,
                remedy=f"Remove {option}; tokenizer.json or tokenizer.model is read",
            )


def family_of(folder: Path) -> str:
    """Return the family of a checkpoint, a key of `FAMILIES`: the `model_type` of its config.json.

    Raises:
        ModelError: there is no readable config.json, it names no known family, or another kind of language model.
    """
    config = read_config(folder)
    model_type = str(config.get("model_type"))
    if model_type not in FAMILIES:
        known = " or ".join(name.capitalize() for name in FAMILIES)
        convert = f"Convert it first: `ospo model convert {folder} OUT`"
        raise ModelError(
            f"not a {known} model",
            field=f"{folder / 'config.json'}: model_type",
            value=model_type,
            remedy=convert if model_type in CONVERTERS else f"Use a {known} checkpoint",
        )
    text, expected = config.get("text_config"), LANGUAGE_MODELS[model_type]
    if isinstance(text, dict) and text.get("model_type", expected) != expected:
        raise ModelError(
            f"the language model is not a {expected.capitalize()}",
            field=f"{folder / 'config.json'}: text_config.model_type",
            value=text["model_type"],
            remedy="Use a checkpoint of the published architecture",
        )
    return model_type


def read_config(folder: Path) -> dict[str, Any]:
    """Return the contents of config.json, which names no other file to read and states sizes that can be built.

    Raises:
        ModelError: there is no such file, it is not a JSON object, or what it states is refused.
    """
    file = folder / "config.json"
    if not is_folder(folder) or not file.is_file():
        raise ModelError("no config.json", field=str(folder), remedy="Give a folder in transformers' format")
    stored = _json_object(file)
    for option in ("transformers_weights", "configuration_files"):
        if option in stored:
            raise ModelError(
                "the configuration names another file with the weights or the configuration",
                field=f"{file}: {option}",
                value=stored[option],
                remedy=f"Remove {option}; model.safetensors or its index is read, and config.json",
            )
    _check_values(stored, f"{file}: ")
    return stored


def _check_values(stored: dict[str, Any], place: str) -> None:
    """Raise ModelError for a number that no model has and that would be built for hours, and for code to download."""
    for option, value in stored.items():
        if isinstance(value, dict):
            _check_values(value, f"{place}{option}.")
        elif option.endswith("_implementation") and "/" in str(value):
            remedy = f"Remove {option}; code of the Hugging Face Hub is not run"
            raise ModelError("names code to download", field=f"{place}{option}", value=value, remedy=remedy)
        elif (isinstance(value, int) and abs(value) > (MOST_PARTS if option in _COUNTS else MOST)) or (
            isinstance(value, list) and len(value) > MOST_PARTS
        ):
            shown = value if isinstance(value, int) and abs(value) < 10**30 else None
            raise ModelError("larger than any model's", field=f"{place}{option}", value=shown, remedy="Correct it")


def _json_object(file: Path) -> dict[str, Any]:
    """Return a file of a model folder that holds a JSON object; raises ModelError if it does not."""
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        stored = None
    except OSError as error:
        raise ModelError(f"the file cannot be read: {error.strerror}", field=str(file)) from error
    if not isinstance(stored, dict):
        raise ModelError(f"{file.name} is not a JSON object", field=str(file), remedy="Copy or download it again")
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
