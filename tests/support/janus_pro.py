"""A random Janus-Pro of the true layout, narrow and shallow enough to make and run on a CPU in seconds.

True are: 384 px pictures, 576 image tokens (24 x 24), 16 384 codes, a vocabulary of 102 400 ids of which the tokenizer
knows few, a byte-level BPE tokenizer with DeepSeek's special tokens and `tokenizer_config.json`, untied embeddings, and
all files of the checkpoint folder. Only widths and depths are not, and weights are random.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers
from tokenizers.decoders import ByteFallback, Fuse, Replace, Strip
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.decoders import Sequence as DecoderSequence
from tokenizers.models import BPE
from tokenizers.processors import ByteLevel as ByteLevelProcessor
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
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
from ospo_core.prompts.families import family
from ospo_core.schema import SubCategory

BOS, EOS, PAD = (
    "<\uff5cbegin\u2581of\u2581sentence\uff5c>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
    "<\uff5c\u2581pad\u2581\uff5c>",
)
TAGS = ("<image_placeholder>", "<begin_of_image>", "<end_of_image>", "<|User|>", "<|Assistant|>")
PATCH = 16
_FAMILY = family("janus_pro")
MERGES = 600

TokenizerKind = Literal["byte_level", "template", "metaspace"]
"""How the tokenizer is built.

`byte_level`: as DeepSeek's `tokenizer.json`, whose post-processor is ByteLevel and adds no begin-of-sequence token,
although `tokenizer_config.json` has `add_bos_token: true`; `template`: the same with a template that adds it;
`metaspace`: as Llama's, with `▁` for spaces, and a template.
"""


@dataclass(frozen=True)
class Shape:
    """Sizes of the checkpoint; those of `Shape()` that matter for the layout are Janus-Pro's.

    Attributes:
        hidden: width of all parts.
        layers: layers of the language model.
        vision_layers: layers of the vision encoder.
        image_size: pixels of an edge, a multiple of `PATCH`; a token covers `PATCH` x `PATCH` of them.
        codes: image codes.
        vocabulary: rows of the text embedding.
    """

    hidden: int = 64
    layers: int = 2
    vision_layers: int = 1
    image_size: int = 384
    codes: int = 16_384
    vocabulary: int = 102_400

    @property
    def grid(self) -> int:
        """Image tokens of an edge."""
        return self.image_size // PATCH


SMALL = Shape(image_size=64, codes=256, vocabulary=4096)
"""For tests in which the number of tokens, codes and ids does not matter: 16 image tokens."""


def make_janus_pro(folder: Path, shape: Shape = SMALL, tokenizer: TokenizerKind = "byte_level", seed: int = 0) -> Path:
    """Write a random checkpoint in the layout of `deepseek-community/Janus-Pro-1B` to `folder`; return the folder."""
    text = janus_pro_tokenizer(tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = JanusForConditionalGeneration(janus_pro_config(text, shape))
        with torch.no_grad():
            for name, weights in network.named_parameters():
                if weights.ndim == 2:  # larger than usual, so that different prompts give clearly different logits
                    weights.normal_(std=1.0 if "embed" in name else 1.5 * weights.shape[1] ** -0.5)
    network.generation_config = GenerationConfig(
        bos_token_id=text.bos_token_id,
        eos_token_id=text.eos_token_id,
        pad_token_id=text.pad_token_id,
        generation_kwargs={"boi_token_id": text.convert_tokens_to_ids("<begin_of_image>")},
    )
    with quiet_transformers():
        network.save_pretrained(folder)
    write_tokenizer(text, folder)
    return folder


def write_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a tokenizer with the class and options that DeepSeek's `tokenizer_config.json` names."""
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    stored = json.loads(file.read_text(encoding="utf-8"))
    stored |= {"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": True, "add_eos_token": False, "legacy": True}
    file.write_text(json.dumps(stored), encoding="utf-8")


def load_janus_pro(folder: Path) -> JanusModel:
    """Load what `make_janus_pro` wrote, on the CPU in float32."""
    model = load_model(folder, ModelConfig(path=str(folder), family="janus_pro", device="cpu", dtype="float32"))
    assert isinstance(model, JanusModel)
    return model


def janus_pro_tokenizer(kind: TokenizerKind = "byte_level") -> PreTrainedTokenizerFast:
    """Return a small tokenizer of that kind; the end of the vocabulary has the special tokens, as DeepSeek's."""
    core = _metaspace() if kind == "metaspace" else _byte_level()
    core.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in (BOS, EOS, PAD, *TAGS)])
    if kind != "byte_level":
        core.post_processor = TemplateProcessing(single=f"{BOS}:0 $A:0", special_tokens=[(BOS, core.token_to_id(BOS))])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        additional_special_tokens=list(TAGS),
        clean_up_tokenization_spaces=False,
        model_max_length=16_384,
    )


def janus_pro_config(tokenizer: PreTrainedTokenizerFast, shape: Shape) -> JanusConfig:
    """Return the configuration; stride of the VQ model, patch and untied embeddings are Janus-Pro's."""
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    text = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=2 * shape.hidden,
        num_hidden_layers=shape.layers,
        max_position_embeddings=16_384,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
        **heads,
    )
    vision = JanusVisionConfig(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.vision_layers,
        num_attention_heads=max(1, shape.hidden // 64),
        mlp_ratio=2.0,
        image_size=shape.image_size,
        patch_size=PATCH,
        num_image_tokens=shape.grid**2,
        projection_dim=shape.hidden,
    )
    vq = JanusVQVAEConfig(
        num_embeddings=shape.codes,
        latent_channels=32,
        base_channels=32,
        channel_multiplier=[1, 1, 1, 1, 1],
        num_res_blocks=1,
        num_patches=shape.grid,
        projection_dim=shape.hidden,
        image_token_embed_dim=shape.hidden,
    )
    return JanusConfig(
        text_config=text,
        vision_config=vision,
        vq_config=vq,
        image_token_id=tokenizer.get_vocab()["<image_placeholder>"],
        tie_word_embeddings=False,
    )


def _byte_level() -> Tokenizer:
    """Return a byte-level BPE, trained on what the family writes; every text comes back as it was."""
    core = Tokenizer(BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = ByteLevelDecoder()
    core.post_processor = ByteLevelProcessor(trim_offsets=False)
    trainer = BpeTrainer(
        vocab_size=256 + MERGES, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    core.train_from_iterator(_sentences(), trainer)
    return core


def _metaspace() -> Tokenizer:
    """Return a BPE in Llama's way: spaces are `▁`, one is put before the text, and unknown characters are bytes."""
    core = Tokenizer(BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = DecoderSequence([Replace("▁", " "), ByteFallback(), Fuse(), Strip(" ", 1, 0)])
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = BpeTrainer(vocab_size=256 + MERGES, special_tokens=["<unk>", *bytes_], show_progress=False)
    core.train_from_iterator([word for text in _sentences() for word in text.split(" ")], trainer)
    inner = json.loads(core.to_str())
    inner["added_tokens"] = [token for token in inner["added_tokens"] if token["content"] == "<unk>"]
    return Tokenizer.from_str(json.dumps(inner))


def _sentences() -> Sequence[str]:
    """Return instructions, examples and answers of the family, so that its words are tokens."""
    examples = [example for kind in SubCategory for example in _FAMILY.seed_examples(kind)]
    answers = [word for word in (*_FAMILY.yes, *_FAMILY.no) for _ in range(50)]
    return [*(_FAMILY.format_prompt(example) for example in examples), *answers]
