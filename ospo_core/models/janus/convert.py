"""Janus in DeepSeek's own layout (model type `multi_modality`) to the layout of transformers, weights unchanged.

The names follow the two published implementations: `janus/models` of DeepSeek's repository, and transformers' Janus.
Sizes that DeepSeek's config.json leaves to its code are read off the weights.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import GenerationConfig, JanusConfig, JanusForConditionalGeneration, LlamaConfig
from transformers.models.janus import JanusVisionConfig, JanusVQVAEConfig

from ospo_core.errors import ModelError
from ospo_core.models.folders import new_folder, readable
from ospo_core.models.janus.checkpoint import BEGIN_OF_IMAGE
from ospo_core.models.locate import check_folder, read_config
from ospo_core.models.tokenizer import export_tokenizer, load_tokenizer

Tensors = dict[str, torch.Tensor]

IMAGE_PLACEHOLDER = "<image_placeholder>"
PAD = "<\uff5c\u2581pad\u2581\uff5c>"
SIGLIP_HEAD = 64
"""Width of an attention head of SigLIP-L, DeepSeek's vision encoder."""

_UNUSED = re.compile(
    r"vision_model\.vision_tower\.attn_pool\..*|gen_vision_model\.quantize\.codebook_used|.*\.rotary_emb\.inv_freq"
)
"""Pooling that Janus does not use, a statistic of training, and what is computed anew."""

_PREFIXES = {
    "vision_model.vision_tower.patch_embed.proj.": "model.vision_model.embeddings.patch_embedding.",
    "vision_model.vision_tower.pos_embed": "model.vision_model.embeddings.position_embedding.weight",
    "vision_model.vision_tower.blocks.": "model.vision_model.encoder.layers.",
    "vision_model.vision_tower.norm.": "model.vision_model.post_layernorm.",
    "aligner.layers.": "model.aligner.layers.",
    "gen_vision_model.": "model.vqmodel.",
    "gen_embed.": "model.generation_embeddings.",
    "gen_aligner.layers.": "model.generation_aligner.layers.",
    "gen_head.output_mlp_projector.": "model.generation_head.proj_out.",
    "gen_head.vision_head.": "model.generation_head.vision_head.",
    "language_model.model.": "model.language_model.",
    "language_model.lm_head.": "lm_head.",
}

_INSIDE: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"^(model\.vision_model\.encoder\.layers\.\d+\.)norm(\d)\.", r"\1layer_norm\2."),
    (r"^(model\.vision_model\.encoder\.layers\.\d+\.)attn\.proj\.", r"\1self_attn.projection_layer."),
    (r"^(model\.vision_model\.encoder\.layers\.\d+\.)attn\.", r"\1self_attn."),
    (r"^(model\.vqmodel\.encoder\.)conv_blocks\.", r"\1down."),
    (r"^(model\.vqmodel\.decoder\.)conv_blocks\.", r"\1up."),
    (r"^(model\.vqmodel\..*\.\d+\.)res\.", r"\1block."),
    (r"^(model\.vqmodel\.(?:en|de)coder\.mid\.)0\.", r"\1block_1."),
    (r"^(model\.vqmodel\.(?:en|de)coder\.mid\.)1\.", r"\1attn_1."),
    (r"^(model\.vqmodel\.(?:en|de)coder\.mid\.)2\.", r"\1block_2."),
    (r"^(model\.(?:generation_)?aligner\.)layers\.0\.", r"\1fc1."),
    (r"^(model\.(?:generation_)?aligner\.)layers\.(\d+)\.", lambda m: f"{m[1]}hidden_layers.{int(m[2]) // 2 - 1}."),
)
"""What has another name inside a part; every second layer of an aligner is an activation."""


def convert_checkpoint(source: Path, out: Path) -> Path:
    """Write the checkpoint `source`, in DeepSeek's layout, to `out` in transformers' layout, and return `out`.

    Weights are read from safetensors, or from `pytorch_model*.bin` with torch's restricted unpickler, which builds
    tensors and runs no code. They keep their type. The image processor is not converted: nothing here uses one.

    Raises:
        ModelError: `source` is not such a checkpoint or not complete.
        StorageError: `out` cannot be written.
    """
    config = read_config(source)
    tokenizer = load_tokenizer(source)
    vocabulary = tokenizer.get_vocab()
    if PAD in vocabulary:
        tokenizer.pad_token = PAD  # as DeepSeek's own code sets it
    if missing := sorted({IMAGE_PLACEHOLDER, BEGIN_OF_IMAGE} - set(vocabulary)):
        raise ModelError("the tokenizer lacks tokens of Janus", field=str(source), value=missing)
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    stored = _read_weights(source)
    with readable("configuration and weights do not belong together", source):
        weights = _renamed(stored)
        layout = _layout(config, weights, ids, vocabulary[IMAGE_PLACEHOLDER])
        with torch.device("meta"):
            network = JanusForConditionalGeneration(layout)
        network.load_state_dict(weights, strict=True, assign=True)
    network.generation_config = GenerationConfig(**ids, generation_kwargs={"boi_token_id": vocabulary[BEGIN_OF_IMAGE]})
    with new_folder(out) as fresh:
        network.save_pretrained(fresh)
        export_tokenizer(tokenizer, fresh)
        check_folder(fresh)
    return out


def _read_weights(source: Path) -> Tensors:
    """Read all tensors of a folder: safetensors where there are any, else pickled tensors."""
    tensors: Tensors = {}
    for file in _weight_files(source):
        with readable("the weights cannot be read", file):
            try:
                if file.suffix == ".safetensors":
                    tensors |= load_file(file)
                else:
                    tensors |= torch.load(file, map_location="cpu", weights_only=True, mmap=True)
            except UnpicklingError as error:  # torch's own message advises to run the code
                raise ModelError("the file is damaged, or holds more than tensors", field=str(file)) from error
    return tensors


def _weight_files(source: Path) -> list[Path]:
    """Return the files with weights, directly in `source`; raises ModelError if there are none or one is missing."""
    for stem, suffix in (("model", "safetensors"), ("pytorch_model", "bin")):
        index = source / f"{stem}.{suffix}.index.json"
        if index.is_file():
            with readable("the index of the weights is damaged", index):
                names = sorted(set(json.loads(index.read_text(encoding="utf-8")).get("weight_map", {}).values()))
            for name in names:
                plain = re.fullmatch(rf"\w[\w.-]*\.{suffix}", str(name), re.ASCII)
                if not plain or not (source / name).is_file():
                    raise ModelError("weights that the index names are not in the folder", field=str(index), value=name)
            return [source / name for name in names]
        if (source / f"{stem}.{suffix}").is_file():
            return [source / f"{stem}.{suffix}"]
    raise ModelError("no weights", field=str(source), remedy="Copy model*.safetensors or pytorch_model*.bin there")


def _renamed(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """Return the tensors under transformers' names, without those that are not used."""
    return dict(pair for name, tensor in tensors.items() for pair in _placed(name, tensor))


def _placed(name: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield names and tensors that one tensor becomes: none, one, or three for queries, keys and values in one."""
    if _UNUSED.fullmatch(name):
        return
    prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None)
    if prefix is None:
        raise ModelError("unknown weights", value=name, remedy="Convert a checkpoint of Janus or Janus-Pro")
    placed = _PREFIXES[prefix] + name.removeprefix(prefix)
    for pattern, replacement in _INSIDE:
        placed = re.sub(pattern, replacement, placed)
    if ".self_attn.qkv." in placed:
        for part, rows in zip("qkv", tensor.chunk(3), strict=True):
            yield placed.replace(".qkv.", f".{part}_proj."), rows.contiguous()
    elif placed.endswith("position_embedding.weight"):
        yield placed, tensor.squeeze(0)
    else:
        yield placed, tensor


def _layout(config: Mapping[str, Any], weights: Tensors, ids: Mapping[str, Any], image_token: int) -> JanusConfig:
    """Return transformers' configuration: the language model's as DeepSeek states it, the rest from the weights."""
    stated = {key: value for key, value in config["language_config"].items() if not key.startswith(("_", "torch_"))}
    text = LlamaConfig(**{**stated, **ids, "tie_word_embeddings": False})
    encoder = "model.vision_model.encoder.layers."
    vision_hidden = weights[f"{encoder}0.layer_norm1.weight"].shape[0]
    vision = JanusVisionConfig(
        hidden_size=vision_hidden,
        num_hidden_layers=_count(weights, rf"{re.escape(encoder)}(\d+)\."),
        num_attention_heads=vision_hidden // SIGLIP_HEAD,
        mlp_ratio=weights[f"{encoder}0.mlp.fc1.weight"].shape[0] / vision_hidden,
        image_size=config["vision_config"]["params"]["image_size"],
        num_image_tokens=weights["model.vision_model.embeddings.position_embedding.weight"].shape[0],
        projection_dim=weights["model.aligner.fc1.weight"].shape[0],
        depth=1 + _count(weights, r"model\.aligner\.hidden_layers\.(\d+)\."),
        patch_size=weights["model.vision_model.embeddings.patch_embedding.weight"].shape[-1],
    )
    return JanusConfig(
        text_config=text,
        vision_config=vision,
        vq_config=_vq_layout(weights),
        image_token_id=image_token,
        tie_word_embeddings=False,
        dtype=weights["lm_head.weight"].dtype,
    )


def _vq_layout(weights: Tensors) -> JanusVQVAEConfig:
    """Return the configuration of the VQ model and of what writes its codes."""
    base = weights["model.vqmodel.encoder.conv_in.weight"].shape[0]
    levels = _count(weights, r"model\.vqmodel\.encoder\.down\.(\d+)\.")
    blocks = [weights[f"model.vqmodel.encoder.down.{level}.block.0.conv1.weight"] for level in range(levels)]
    embed_dim, latent = weights["model.vqmodel.quant_conv.weight"].shape[:2]
    projection, embedded = weights["model.generation_head.proj_out.weight"].shape
    return JanusVQVAEConfig(
        embed_dim=embed_dim,
        num_embeddings=weights["model.generation_head.vision_head.weight"].shape[0],
        latent_channels=latent,
        base_channels=base,
        channel_multiplier=[block.shape[0] // base for block in blocks],
        num_res_blocks=_count(weights, r"model\.vqmodel\.encoder\.down\.0\.block\.(\d+)\."),
        projection_dim=projection,
        image_token_embed_dim=embedded,
        num_hidden_layers=1 + _count(weights, r"model\.generation_aligner\.hidden_layers\.(\d+)\."),
    )


def _count(weights: Tensors, pattern: str) -> int:
    """Return how many numbers the names of the weights have where `pattern` has its group."""
    return len({match[1] for name in weights if (match := re.match(pattern, name))})
