"""A random Llama with a word-level tokenizer, small enough to make inside a test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIALS = (
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
"""Special tokens of the shapes family; a token's id is its place."""

_SENTENCE = (
    "a red blue green circle square star and left right of above below is are there the two three write prompt "
    "about examples none yes no | , . ; : ?"
)
WORDS = tuple(_SENTENCE.split())
"""Words of the tiny vocabulary."""


def make_tokenizer(words: Sequence[str] = WORDS) -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token a word, which adds `<bos>` itself."""
    vocabulary = {token: at for at, token in enumerate((*SPECIALS, *words))}
    inner = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = WhitespaceSplit()
    inner.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    inner.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", SPECIALS.index("<bos>"))])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=list(SPECIALS[4:]),
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )


def make_tiny_llama(folder: Path, words: Sequence[str] = WORDS, seed: int = 0) -> Path:
    """Write a random two-layer Llama (hidden 64) and its tokenizer into `folder`; return the folder."""
    tokenizer = make_tokenizer(words)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.3,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
