"""What a checkpoint is: checked as a round checks it, and described without reading its weights."""

from __future__ import annotations

from importlib.metadata import version
from math import prod
from pathlib import Path

from safetensors import safe_open

from ospo_core.artifacts.model_digest import model_digest
from ospo_core.config.sections import ModelConfig
from ospo_core.models.folders import readable
from ospo_core.models.libraries import FLOORS
from ospo_core.models.loading import load_shapes
from ospo_core.models.locate import check_folder, check_weights, family_of
from ospo_core.prompts.failures import printable


def model_facts(folder: Path) -> dict[str, str]:
    """Return what `ospo model check` shows, by name, after the checks that come before a round.

    Only the headers of the weights are read, and all files once for the digest.

    Raises:
        ModelError: the folder is not a complete checkpoint of a known family.
    """
    check_folder(folder)
    model = load_shapes(folder, ModelConfig(path=str(folder)))
    picture, tokenizer = model.geometry, model.tokenizer
    files = check_weights(folder)
    parameters, types = _stored(files)
    special = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token)
    return {
        "folder": str(folder),
        "digest": model_digest(folder),
        "family": family_of(folder),
        "weights": f"{parameters / 1e9:.3f} billion parameters of type {', '.join(types)} in {len(files)} files, "
        f"{sum(file.stat().st_size for file in files) / 1e9:.2f} GB",
        "language model": f"{model.backbone.config.num_hidden_layers} layers of width "
        f"{model.backbone.config.hidden_size}, {model.backbone.config.vocab_size} ids",
        "pictures": f"{picture.width} x {picture.height} px, {picture.tokens} tokens of {picture.codes} codes",
        "tokenizer": f"{len(tokenizer)} tokens; begin, end, padding: {printable(' '.join(map(str, special)))}",
        "libraries": ", ".join(f"{name} {version(name)} (>= {floor})" for name, floor in FLOORS.items()),
    }


def _stored(files: list[Path]) -> tuple[int, list[str]]:
    """Return the number of stored parameters and their types, from the headers of the files."""
    count, types = 0, set()
    for file in files:
        with readable("the weights cannot be read", file), safe_open(file, framework="pt") as stored:
            for name in stored.keys():  # noqa: SIM118 - not a mapping: it has no iterator
                tensor = stored.get_slice(name)
                count += prod(tensor.get_shape())
                types.add(tensor.get_dtype())
    return count, sorted(types)
