"""A tiny random Janus: 32 px pictures, 16 image tokens, hidden size 32, two layers, one token a word."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import (
    GenerationConfig,
    JanusConfig,
    JanusForConditionalGeneration,
    LlamaConfig,
    PreTrainedTokenizerFast,
)
from transformers.models.janus import JanusVisionConfig, JanusVQVAEConfig

from ospo_core.config.sections import ModelConfig
from ospo_core.models.folders import quiet_transformers
from ospo_core.models.janus.model import JanusModel
from ospo_core.models.loading import load_model
from ospo_core.prompts.families import Chat, family
from ospo_core.schema import PerturbationKind, SubCategory

IMAGE_SIZE, PATCH, HIDDEN, CODES = 32, 8, 32, 48
TOKENS = (IMAGE_SIZE // PATCH) ** 2
SPECIAL = (
    "<pad>",
    "<bos>",
    "<eos>",
    "<unk>",
    "<|User|>",
    "<|Assistant|>",
    "<begin_of_image>",
    "<end_of_image>",
    "<image_placeholder>",
)
_WORDS = (
    "a an the is are there of in on and left right above below behind front inside touching one two three four red "
    "blue green yellow purple orange circle circles square squares triangle triangles star stars striped dotted "
    "solid plain background black white gray small large yes no none shapes any picture"
)


def make_tiny_janus(folder: Path, seed: int = 0, tied: bool = False, codes: int = CODES) -> Path:
    """Write a tiny random Janus checkpoint with its tokenizer to `folder` and return the folder.

    Weights are larger than usual at the start, so that different prompts give clearly different logits.
    """
    tokenizer = make_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = JanusForConditionalGeneration(_config(tokenizer, tied, codes))
        with torch.no_grad():
            for name, weights in model.named_parameters():
                if weights.ndim == 2:
                    weights.normal_(std=1.0 if "embedding" in name else 0.25)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        generation_kwargs={"boi_token_id": tokenizer.convert_tokens_to_ids("<begin_of_image>")},
    )
    with quiet_transformers():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def load_tiny_janus(folder: Path) -> JanusModel:
    """Load what `make_tiny_janus` wrote, on the CPU in float32."""
    model = load_model(folder, ModelConfig(path=str(folder), family="shapes", device="cpu", dtype="float32"))
    assert isinstance(model, JanusModel)
    return model


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Return a word-level tokenizer of the shapes family's words; it adds `<bos>` itself."""
    words = sorted({word for text in [_WORDS, *_family_texts()] for word in text.split()} - set(SPECIAL))
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *words])}
    core = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = WhitespaceSplit()
    core.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", vocabulary["<bos>"])])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=list(SPECIAL[4:]),
        clean_up_tokenization_spaces=False,
    )


def _family_texts() -> list[str]:
    """Return instructions and answers of every kind, for their words."""
    shapes = family("shapes")
    texts = [shapes.chat_text(Chat("yes")), shapes.decompose("a").instruction]
    for sub_category in SubCategory:
        examples = shapes.seed_examples(sub_category)
        texts.append(shapes.write_prompt(sub_category, examples).instruction)
        texts.append(shapes.densify("a", "a", sub_category).instruction)
        texts += [shapes.format_prompt(example) for example in examples]
        texts += [shapes.perturb(kind, "a", sub_category).instruction for kind in PerturbationKind]
    return texts


def _config(tokenizer: PreTrainedTokenizerFast, tied: bool, codes: int) -> JanusConfig:
    """Return the tiny configuration; the VQ model has stride 8, as the vision encoder's patches."""
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=tied,
    )
    vq = JanusVQVAEConfig(
        embed_dim=8,
        num_embeddings=codes,
        latent_channels=32,
        base_channels=32,
        channel_multiplier=[1, 1, 1, 1],
        num_res_blocks=1,
        projection_dim=HIDDEN,
        image_token_embed_dim=HIDDEN,
    )
    return JanusConfig(
        text_config=text,
        vision_config=_vision(),
        vq_config=vq,
        image_token_id=tokenizer.get_vocab()["<image_placeholder>"],
        tie_word_embeddings=tied,
    )


def _vision() -> JanusVisionConfig:
    """Return the tiny vision encoder's configuration."""
    return JanusVisionConfig(
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=IMAGE_SIZE,
        patch_size=PATCH,
        mlp_ratio=2.0,
        projection_dim=HIDDEN,
        num_image_tokens=TOKENS,
    )
