"""The configuration of the tiny Janus: the architecture of Janus-Pro, small enough for a CPU."""

from __future__ import annotations

from typing import Any

from transformers import JanusConfig, JanusVisionConfig, JanusVQVAEConfig, LlamaConfig

from ospo_core.shapes.world import CELL, GRID, SIZE

CODES = 320
HIDDEN = 256
LAYERS = 5
VISION_HIDDEN = 192
VISION_LAYERS = 4
MAX_POSITIONS = 256


def tiny_config(vocabulary: int, special: dict[str, int]) -> JanusConfig:
    """Return the configuration for a tokenizer of `vocabulary` words.

    Args:
        vocabulary: number of tokens of the text vocabulary.
        special: ids of `bos`, `eos`, `pad` and `image` (the placeholder of image features).
    """
    text = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=HIDDEN,
        intermediate_size=640,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=HIDDEN // 4,
        max_position_embeddings=MAX_POSITIONS,
        bos_token_id=special["bos"],
        eos_token_id=special["eos"],
        pad_token_id=special["pad"],
        tie_word_embeddings=False,
    )
    ids: dict[str, Any] = {f"{name}_token_id": special[name] for name in ("bos", "eos", "pad", "image")}
    return JanusConfig(text_config=text, vision_config=_vision(), vq_config=_vq(), tie_word_embeddings=False, **ids)


def _vision() -> JanusVisionConfig:
    """Return the encoder's part: one patch a cell."""
    return JanusVisionConfig(
        hidden_size=VISION_HIDDEN,
        num_hidden_layers=VISION_LAYERS,
        num_attention_heads=4,
        image_size=SIZE,
        patch_size=CELL,
        projection_dim=HIDDEN,
        num_image_tokens=GRID * GRID,
    )


def _vq() -> JanusVQVAEConfig:
    """Return the VQ model's part: four halvings make one latent a cell."""
    return JanusVQVAEConfig(
        embed_dim=32,
        num_embeddings=CODES,
        latent_channels=64,
        base_channels=32,
        channel_multiplier=[1, 1, 2, 2, 2],
        num_res_blocks=1,
        num_patches=GRID,
        projection_dim=HIDDEN,
        image_token_embed_dim=HIDDEN,
    )
