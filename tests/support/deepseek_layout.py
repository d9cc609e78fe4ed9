"""Write a Janus of transformers in DeepSeek's own layout: the inverse of `ospo model convert`, for its tests.

The names are written out from DeepSeek's modules (`janus/models/siglip_vit.py`, `vq_model.py`, `projector.py`,
`modeling_vlm.py`), not derived from the converter.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import JanusForConditionalGeneration

_NAMES = (
    (r"lm_head\.", "language_model.lm_head."),
    (r"model\.language_model\.", "language_model.model."),
    (r"model\.vision_model\.embeddings\.patch_embedding\.", "vision_model.vision_tower.patch_embed.proj."),
    (r"model\.vision_model\.embeddings\.position_embedding\.weight", "vision_model.vision_tower.pos_embed"),
    (r"model\.vision_model\.post_layernorm\.", "vision_model.vision_tower.norm."),
    (r"model\.vision_model\.encoder\.layers\.(\d+)\.layer_norm(\d)\.", r"vision_model.vision_tower.blocks.\1.norm\2."),
    (
        r"model\.vision_model\.encoder\.layers\.(\d+)\.self_attn\.projection_layer\.",
        r"vision_model.vision_tower.blocks.\1.attn.proj.",
    ),
    (r"model\.vision_model\.encoder\.layers\.(\d+)\.mlp\.", r"vision_model.vision_tower.blocks.\1.mlp."),
    (r"model\.aligner\.fc1\.", "aligner.layers.0."),
    (r"model\.aligner\.hidden_layers\.0\.", "aligner.layers.2."),
    (r"model\.generation_aligner\.fc1\.", "gen_aligner.layers.0."),
    (r"model\.generation_aligner\.hidden_layers\.0\.", "gen_aligner.layers.2."),
    (r"model\.generation_embeddings\.", "gen_embed."),
    (r"model\.generation_head\.proj_out\.", "gen_head.output_mlp_projector."),
    (r"model\.generation_head\.vision_head\.", "gen_head.vision_head."),
    (r"model\.vqmodel\.(en|de)coder\.mid\.block_1\.", r"gen_vision_model.\1coder.mid.0."),
    (r"model\.vqmodel\.(en|de)coder\.mid\.attn_1\.", r"gen_vision_model.\1coder.mid.1."),
    (r"model\.vqmodel\.(en|de)coder\.mid\.block_2\.", r"gen_vision_model.\1coder.mid.2."),
    (r"model\.vqmodel\.(en|de)coder\.(?:down|up)\.(\d+)\.block\.", r"gen_vision_model.\1coder.conv_blocks.\2.res."),
    (r"model\.vqmodel\.(en|de)coder\.(?:down|up)\.", r"gen_vision_model.\1coder.conv_blocks."),
    (r"model\.vqmodel\.", "gen_vision_model."),
)


_ATTENTION = re.compile(r"model\.vision_model\.encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(\w+)")


def deepseek_weights(network: JanusForConditionalGeneration) -> dict[str, torch.Tensor]:
    """Return the weights under DeepSeek's names, with the tensors that transformers does not keep."""
    state, tensors = network.state_dict(), dict[str, torch.Tensor]()
    for name, tensor in state.items():
        attention = _ATTENTION.fullmatch(name)
        if attention and attention[2] == "q":
            parts = [state[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            tensors[f"vision_model.vision_tower.blocks.{attention[1]}.attn.qkv.{attention[3]}"] = torch.cat(parts)
        elif not attention:
            pattern, replacement = next(pair for pair in _NAMES if re.match(pair[0], name))
            tensors[re.sub(f"^{pattern}", replacement, name)] = tensor
    tensors["vision_model.vision_tower.pos_embed"] = tensors["vision_model.vision_tower.pos_embed"][None]
    tensors["vision_model.vision_tower.attn_pool.latent"] = torch.zeros(1, 1, 64)
    tensors["gen_vision_model.quantize.codebook_used"] = torch.zeros(65536)
    return tensors


def deepseek_config(network: JanusForConditionalGeneration) -> dict[str, Any]:
    """Return config.json with the keys that those of Janus-Pro-1B and -7B have."""
    text, vision, vq = network.config.text_config, network.config.vision_config, network.config.vq_config
    codes = {"image_token_size": vq.num_embeddings}
    return {
        "model_type": "multi_modality",
        "architectures": ["MultiModalityCausalLM"],
        "torch_dtype": "bfloat16",
        "transformers_version": "4.33.1",
        "language_config": {
            "model_type": "llama",
            "hidden_size": text.hidden_size,
            "intermediate_size": text.intermediate_size,
            "max_position_embeddings": text.max_position_embeddings,
            "num_attention_heads": text.num_attention_heads,
            "num_hidden_layers": text.num_hidden_layers,
            "num_key_value_heads": text.num_key_value_heads,
            "torch_dtype": "bfloat16",
            "vocab_size": text.vocab_size,
            "_attn_implementation": "flash_attention_2",
        },
        "vision_config": {
            "cls": "CLIPVisionTower",
            "model_type": "vision",
            "params": {
                "image_size": vision.image_size,
                "model_name": "siglip_large_patch16_384",
                "select_feature": "same",
                "select_layer": -1,
            },
        },
        "aligner_config": _projector("aligner", vision.hidden_size, text.hidden_size),
        "gen_aligner_config": _projector("gen_aligner", vq.embed_dim, text.hidden_size),
        "gen_head_config": {
            "cls": "vision_head",
            "model_type": "gen_head",
            "params": {"image_token_embed": text.hidden_size, "n_embed": text.hidden_size, **codes},
        },
        "gen_vision_config": {"cls": "VQ-16", "model_type": "gen_vision", "params": {"n_embed": vq.embed_dim, **codes}},
    }


def write_deepseek(network: JanusForConditionalGeneration, tokenizer_from: Path, folder: Path) -> Path:
    """Write config.json, pickled weights (as published) and the tokenizer of `tokenizer_from`; return the folder."""
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer_from / name, folder)
    (folder / "config.json").write_text(json.dumps(deepseek_config(network)), encoding="utf-8")
    torch.save(deepseek_weights(network), folder / "pytorch_model.bin")
    return folder


def _projector(name: str, width: int, out: int) -> dict[str, Any]:
    """Return the configuration of one of the two aligners."""
    params = {"depth": 2, "input_dim": width, "n_embed": out, "projector_type": "mlp_gelu"}
    return {"cls": "MlpProjector", "model_type": name, "params": params}
