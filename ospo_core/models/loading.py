"""Load a model folder and check that it is complete.

Only safetensors weights are read and no code of the folder is run. A checkpoint that lacks a tensor is refused:
transformers alone would fill it with random numbers and only log that it did.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from ospo_core.config.sections import ModelConfig
from ospo_core.errors import ModelError
from ospo_core.models.base import UnifiedModel
from ospo_core.models.folders import quiet_transformers, readable
from ospo_core.models.locate import check_folder, model_class
from ospo_core.models.products import reorder_linears
from ospo_core.models.tokenizer import load_tokenizer
from ospo_core.prompts.families import family

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_CPU = torch.device("cpu")


def load_model(folder: Path, config: ModelConfig) -> UnifiedModel:
    """Load the checkpoint in `folder` for inference; its `model_type` chooses the class.

    Raises:
        ModelError: the folder is not a complete checkpoint of a known family, or the device is not there.
    """
    check_folder(folder)
    device = _device(config.device)
    tokenizer = load_tokenizer(folder)
    network = read_network(folder, _DTYPES[config.dtype], device)
    network.requires_grad_(False)
    reorder_linears(network)
    return model_class(folder)(network, tokenizer, family(config.family), folder)


def load_shapes(folder: Path, config: ModelConfig) -> UnifiedModel:
    """Return the model of `folder` without weights, on the device `meta`, to plan with; the folder needs none either.

    Raises:
        ModelError: the configuration is not that of a known family, or the tokenizer cannot be read.
    """
    network_class: Any = model_class(folder).network_class
    with readable("the configuration cannot be read", folder), torch.device("meta"):
        whole = network_class.config_class.from_pretrained(folder, local_files_only=True)
        network = network_class(whole).to(_DTYPES[config.dtype])
    return model_class(folder)(network, load_tokenizer(folder), family(config.family), folder)


def read_network(folder: Path, dtype: torch.dtype | str = "auto", device: torch.device = _CPU) -> PreTrainedModel:
    """Read the network from safetensors straight to a device; `dtype="auto"` keeps the stored type.

    Raises:
        ModelError: the family is unknown, or the weights are damaged, of other shapes than the configuration says, or
            incomplete.
    """
    network_class = model_class(folder).network_class
    with readable("the weights cannot be read", folder, "Copy or train the model again"), quiet_transformers():
        found: Any = network_class.from_pretrained(
            folder,
            dtype=dtype,
            device_map=None if device.type == "cpu" else {"": device},
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    network: PreTrainedModel = found[0]
    for problem in ("missing_keys", "mismatched_keys"):  # transformers invented these tensors, or ignored them
        if names := sorted(str(name) for name in found[1].get(problem, ())):
            raise ModelError(
                f"{len(names)} tensors of the weights are missing or do not fit",
                field=str(folder),
                value=names[:3],
                remedy="Copy or train the model again",
            )
    return network


def _device(name: str) -> torch.device:
    """Return the device that a configuration names; `auto` is the GPU where there is one."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ModelError("no GPU is visible", field="model.device", value=name, remedy="Use device auto or cpu")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())
