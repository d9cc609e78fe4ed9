"""The tiny Janus: its tokenizer, its configuration (Janus-Pro's architecture, small enough for a CPU), and its files.

The tokenizer has one token per word and per mark, and the image tags of Janus.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from torch import nn
from torch.nn import functional as F
from transformers import (
    GenerationConfig,
    JanusConfig,
    JanusForConditionalGeneration,
    JanusVisionConfig,
    JanusVQVAEConfig,
    LlamaConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from ospo_core.artifacts.atomic_write import atomic_file
from ospo_core.models.folders import readable
from ospo_core.prompts.families import family
from ospo_core.prompts.families.shapes import NO_RELATION, PHRASES
from ospo_core.schema import PerturbationKind
from ospo_core.shapes.grammar import NUMBERS, RELATIONS, SIDES, cell_name
from ospo_core.shapes.world import CELL, COLORS, CONTAINERS, GRID, SHAPES, SIZE, TEXTURES

logger = logging.getLogger(__name__)

BOS, EOS, PAD, UNK = "<bos>", "<eos>", "<pad>", "<unk>"
USER, ASSISTANT = "<|User|>", "<|Assistant|>"
BEGIN_IMAGE, END_IMAGE, IMAGE = "<begin_of_image>", "<end_of_image>", "<image_placeholder>"
SPECIAL = (PAD, UNK, BOS, EOS, USER, ASSISTANT, BEGIN_IMAGE, END_IMAGE, IMAGE)

DESCRIBE, DESCRIBE_CELLS = "describe the picture .", "describe the picture with places ."
"""Instructions for captioning, which only pretraining uses."""

HIDDEN = 256


def vocabulary() -> list[str]:
    """Return every word and mark that can occur in the formats of the shapes family and in its world."""
    shapes = family("shapes")
    texts = [
        *COLORS,
        *SHAPES,
        *(f"{shape}s" for shape in SHAPES),
        *CONTAINERS,
        *TEXTURES,
        *NUMBERS,
        *RELATIONS,
        *SIDES,
        *(cell_name((row, column)) for row in range(GRID) for column in range(GRID)),
        *PHRASES.values(),
        *(kind.value for kind in PerturbationKind),
        *shapes.yes,
        *shapes.no,
        NO_RELATION,
        DESCRIBE,
        DESCRIBE_CELLS,
        "a an and at the is are there object objects only picture image of ? . ; , | :",
        shapes.perturb(PerturbationKind.REPLACE, "", next(iter(PHRASES))).instruction,
        shapes.densify("", "", next(iter(PHRASES))).instruction,
        shapes.decompose("").instruction,
        shapes.write_prompt(next(iter(PHRASES)), []).instruction,
    ]
    return list(dict.fromkeys(word for text in texts for word in text.split()))


def token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    """Return the id of a token of the vocabulary."""
    return int(tokenizer.get_vocab()[token])


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer, which prepends the begin-of-sequence token to every text."""
    words = [*SPECIAL, *vocabulary()]
    inner = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token=UNK))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    bos_id = words.index(BOS)
    inner.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, bos_id)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNK,
        additional_special_tokens=[USER, ASSISTANT, BEGIN_IMAGE, END_IMAGE, IMAGE],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def build_model(seed: int) -> JanusForConditionalGeneration:
    """Return the tiny Janus with random weights."""
    tokenizer = build_tokenizer()
    ids: dict[str, Any] = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=640,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=HIDDEN // 4,
        max_position_embeddings=256,
        **ids,
        tie_word_embeddings=False,
    )
    vision = JanusVisionConfig(  # one patch per cell
        hidden_size=192,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=SIZE,
        patch_size=CELL,
        projection_dim=HIDDEN,
        num_image_tokens=GRID * GRID,
    )
    vq = JanusVQVAEConfig(  # four halvings give one latent per cell
        embed_dim=32,
        num_embeddings=320,
        latent_channels=64,
        base_channels=32,
        channel_multiplier=[1, 1, 2, 2, 2],
        num_res_blocks=1,
        num_patches=GRID,
        projection_dim=HIDDEN,
        image_token_embed_dim=HIDDEN,
    )
    ids["image_token_id"] = token_id(tokenizer, IMAGE)
    config = JanusConfig(text_config=text, vision_config=vision, vq_config=vq, tie_word_embeddings=False, **ids)
    torch.manual_seed(seed)
    return JanusForConditionalGeneration(config)


def save_model(model: JanusForConditionalGeneration, folder: Path) -> None:
    """Write weights (bfloat16), configuration and tokenizer; code vectors are stored normalised."""
    with torch.no_grad():
        codebook = model.model.vqmodel.quantize.embedding.weight
        codebook.copy_(F.normalize(codebook, dim=1))
    nn.Module.to(model, device="cpu", dtype=torch.bfloat16)
    tokenizer = build_tokenizer()
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        generation_kwargs={"boi_token_id": token_id(tokenizer, BEGIN_IMAGE)},
    )
    model.save_pretrained(folder, max_shard_size="100MB")
    tokenizer.save_pretrained(folder)


def save_checkpoint(path: Path, model: nn.Module, optimisers: Sequence[torch.optim.Optimizer], step: int) -> None:
    """Write weights, optimisers and the number of finished steps in one file, which appears whole or not at all."""
    states = [optimiser.state_dict() for optimiser in optimisers]
    with atomic_file(path) as temporary:
        torch.save({"model": model.state_dict(), "optimisers": states, "step": step}, temporary)


def load_checkpoint(path: Path, model: nn.Module, optimisers: Sequence[torch.optim.Optimizer]) -> int:
    """Restore a checkpoint if there is one; return the next step, 0 where there is none.

    Raises:
        ModelError: it cannot be read, or is that of another model.
    """
    if not path.exists():
        return 0
    with readable("the checkpoint cannot be read", path, "Remove it to start again"):
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        model.load_state_dict(state["model"])
        for optimiser, saved in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        step = int(state["step"])
    logger.info("resumed at step %d", step)
    return step
