"""LoRA adapters on the language model: add, save, load, merge (docs/method.md, section 4.3).

Only the layers that `UnifiedModel.lora_targets` names are adapted; everything else stays frozen. PEFT puts the adapter
into the network itself, so a model whose network has one computes with it from then on. A saved adapter is an ordinary
PEFT folder, without the path of the base model.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME, PeftType
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from ospo_core.config.sections import LoraSettings
from ospo_core.errors import ModelError
from ospo_core.models.base import UnifiedModel
from ospo_core.models.folders import copy_all_but_weights, new_folder, readable
from ospo_core.models.loading import read_network
from ospo_core.models.locate import check_folder
from ospo_core.models.lora import AdaptedLinear, share_inputs

_ADAPTER = "default"
_CHOSEN = frozenset(
    {"r", "lora_alpha", "lora_dropout", "target_modules", "inference_mode", "base_model_name_or_path", "peft_version"}
)
"""What an adapter's configuration may say; the rest stays as PEFT has it by default."""
_CPU = torch.device("cpu")


def add_lora(model: UnifiedModel, settings: LoraSettings, seed: int = 0) -> PeftModel:
    """Freeze the network and put fresh trainable adapters into its language model; the output does not change yet.

    The network is changed in place. `seed` is that of the adapters' first matrices; the global generators are left as
    they were.
    """
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=model.lora_targets,
        bias="none",
    )
    config._register_custom_module({nn.Linear: AdaptedLinear})  # PEFT's way to use layers of one's own
    gpus = {weights.device.index or 0 for weights in model.network.parameters() if weights.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(gpus)):
        torch.manual_seed(seed)
        adapted = get_peft_model(model.network, config)
    share_inputs(model.backbone)
    return adapted


def save_adapter(model: PeftModel, folder: Path) -> Path:
    """Write the adapter as a PEFT folder, replacing an earlier one, and return the folder.

    Raises:
        StorageError: the folder cannot be written.
    """
    config = copy.deepcopy(model.peft_config[_ADAPTER])
    config.inference_mode = True
    config.base_model_name_or_path = None
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(state.items())}
    with new_folder(folder) as fresh:
        config.save_pretrained(str(fresh))
        save_file(weights, fresh / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
    return folder


def load_adapter(network: PreTrainedModel, folder: Path, trainable: bool = False) -> PeftModel:
    """Put the adapter saved in `folder` into `network` (changed in place), to use it or to go on training it.

    Raises:
        ModelError: the folder is not a complete adapter for this model.
    """
    for name in (CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME):
        if not (folder / name).is_file():
            raise ModelError("not a PEFT adapter in safetensors: a file is missing", field=str(folder / name))
    config = _plain_config(folder)
    with readable("the adapter cannot be read", folder):
        with safe_open(folder / SAFETENSORS_WEIGHTS_NAME, framework="pt") as stored:
            names = set(stored.keys())
        adapted = PeftModel.from_pretrained(network, str(folder), is_trainable=trainable, config=config)
    differing = sorted(names ^ set(get_peft_model_state_dict(adapted, save_embedding_layers=False)))
    if differing:
        raise ModelError("the adapter does not fit the model", field=str(folder), value=differing[:3])
    return adapted


def _plain_config(folder: Path) -> LoraConfig:
    """Return the configuration of an adapter; raises ModelError unless it is plain LoRA as `add_lora` makes it.

    Other kinds and options load further files, import modules that the configuration names, or change the base.
    """
    file = folder / CONFIG_NAME
    with readable("the adapter cannot be read", file):
        stored = json.loads(file.read_text(encoding="utf-8"))
        odd = {"peft_type": stored["peft_type"]} if stored["peft_type"] != PeftType.LORA else {}
        config = LoraConfig() if odd else LoraConfig.from_pretrained(str(folder))
    usual = vars(LoraConfig())
    odd |= {name: found for name, found in vars(config).items() if name not in _CHOSEN and found != usual.get(name)}
    for name, found in odd.items():
        remedy = "Use an adapter that this package has written"
        raise ModelError("not a plain LoRA adapter", field=f"{file}: {name}", value=found, remedy=remedy)
    return config


def merge_adapter(base_folder: Path, adapter_folder: Path, out_folder: Path, device: torch.device = _CPU) -> Path:
    """Write the base model with the adapter merged in, with the base's tokenizer and configurations; return the folder.

    Weights keep the type they have in the base. The base is loaded to `device`, where the merging is done.

    Raises:
        ModelError: the base or the adapter is not complete.
        StorageError: the folder cannot be written.
    """
    check_folder(base_folder)
    model = load_adapter(read_network(base_folder, device=device), adapter_folder).merge_and_unload()
    with new_folder(out_folder) as fresh:
        model.save_pretrained(fresh)
        copy_all_but_weights(base_folder, fresh)
    return out_folder
