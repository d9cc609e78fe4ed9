"""A Janus with random weights, made on its device: speed and memory do not depend on what weights say.

"1b" and "7b" are the checkpoints `deepseek-community/Janus-Pro-1B` and `-7B`, "mid" has their images but is small, and
"tiny" is for tests. Whatever is not listed here (VQ model, SigLIP-L/16 at 384 px) is the default of transformers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import JanusConfig, JanusForConditionalGeneration, LlamaConfig, PreTrainedTokenizerFast
from transformers.models.janus import JanusVisionConfig, JanusVQVAEConfig

from ospo_core.models.janus.model import JanusModel
from ospo_core.prompts.families import family
from ospo_core.schema import SubCategory

_FAMILY = family("janus_pro")
_EXAMPLES = [example for kind in SubCategory for example in _FAMILY.seed_examples(kind)]
PROMPTS = [example.prompt for example in _EXAMPLES]
CONCEPTS = [concept for example in _EXAMPLES for concept in example.concepts]
_BOS, _EOS, _PAD = "<\uff5cbegin\u2581of\u2581sentence\uff5c>", "<\uff5cend\u2581of\u2581sentence\uff5c>", "<pad>"
_TAGS = ["<image_placeholder>", "<begin_of_image>", "<end_of_image>", "<|User|>", "<|Assistant|>"]
PATCH = 16
_TOKENIZER_IDS = 2048


@dataclass(frozen=True)
class Size:
    """What differs between the sizes.

    Attributes:
        hidden: width of the language model.
        layers: its layers.
        heads: its attention heads, for keys and values too.
        intermediate: width of its feed-forward layers.
        vocabulary: text ids.
        image_size: pixels of an edge; a token covers `PATCH` x `PATCH` of them.
        codes: image codes.
        vision_hidden: width of the vision encoder.
        vision_layers: its layers.
        base_channels: channels of the VQ model's outer layers.
    """

    hidden: int
    layers: int
    heads: int
    intermediate: int
    vocabulary: int = 102_400
    image_size: int = 384
    codes: int = 16_384
    vision_hidden: int = 1024
    vision_layers: int = 24
    base_channels: int = 128


SIZES = {
    "tiny": Size(64, 2, 2, 128, 4096, 64, 256, 64, 2, 32),
    "mid": Size(512, 8, 8, 1408, 4096, 384, 16_384, 256, 4, 32),
    "1b": Size(2048, 24, 16, 5632),
    "7b": Size(4096, 30, 32, 11008),
}


def random_janus(size: Size, device: torch.device, dtype: torch.dtype, seed: int = 0) -> JanusModel:
    """Return a Janus of that size with random weights, ready for inference; on `meta` it has shapes only."""
    tokenizer = byte_level_tokenizer()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), _default_dtype(dtype), device:
        torch.manual_seed(seed)
        network = JanusForConditionalGeneration(janus_config(size, tokenizer))
    network.requires_grad_(False)
    return JanusModel(network, tokenizer, _FAMILY)


def janus_config(size: Size, tokenizer: PreTrainedTokenizerFast) -> JanusConfig:
    """Return the configuration of transformers; text embeddings and head are not tied, as in the checkpoints."""
    grid = size.image_size // PATCH
    text = LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        max_position_embeddings=16_384,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = JanusVisionConfig(
        hidden_size=size.vision_hidden,
        num_hidden_layers=size.vision_layers,
        image_size=size.image_size,
        patch_size=PATCH,
        num_image_tokens=grid * grid,
        projection_dim=size.hidden,
    )
    vq = JanusVQVAEConfig(
        num_embeddings=size.codes,
        base_channels=size.base_channels,
        num_patches=grid,
        projection_dim=size.hidden,
        image_token_embed_dim=size.hidden,
    )
    return JanusConfig(
        text_config=text,
        vision_config=vision,
        vq_config=vq,
        image_token_id=tokenizer.get_vocab()["<image_placeholder>"],
        tie_word_embeddings=False,
    )


def byte_level_tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer in the layout of DeepSeek's, with few merges; it adds begin-of-sequence."""
    texts = [*PROMPTS, *CONCEPTS, *([" yes no Yes No", "yes", "no", "Yes", "No", "Is there? Answer yes or no."] * 20)]
    core = Tokenizer(BPE())
    core.pre_tokenizer, core.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    specials = [AddedToken(text, normalized=False, special=True) for text in (_PAD, _BOS, _EOS, *_TAGS)]
    alphabet = ByteLevel.alphabet()
    trainer = BpeTrainer(
        vocab_size=_TOKENIZER_IDS, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(texts, trainer)
    core.post_processor = TemplateProcessing(single=f"{_BOS}:0 $A:0", special_tokens=[(_BOS, core.token_to_id(_BOS))])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=_BOS,
        eos_token=_EOS,
        pad_token=_PAD,
        additional_special_tokens=_TAGS,
        clean_up_tokenization_spaces=False,
    )


def dense_prompts(count: int) -> list[str]:
    """Return prompts of about the length of dense ones: three short prompts in one."""
    return [
        f"{PROMPTS[index % len(PROMPTS)]}, with {PROMPTS[(7 * index + 3) % len(PROMPTS)]}, "
        f"and far behind them {PROMPTS[(11 * index + 5) % len(PROMPTS)]} in the evening light"
        for index in range(count)
    ]


def questions_about(picture: int, count: int) -> list[str]:
    """Return `count` questions for a picture."""
    return [f"Is there a {CONCEPTS[(picture + 5 * index) % len(CONCEPTS)]} in the picture?" for index in range(count)]


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Make new weights of that type inside the block."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
