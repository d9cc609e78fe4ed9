"""A tiny random Emu3: 32 px pictures, 4 rows of 4 image tokens, hidden size 32, two layers, a byte-level tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, pre_tokenizers
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.processors import ByteLevel as ByteLevelProcessor
from tokenizers.trainers import BpeTrainer
from transformers import Emu3Config, Emu3ForConditionalGeneration, GenerationConfig, PreTrainedTokenizerFast
from transformers.models.emu3 import Emu3TextConfig, Emu3VQVAEConfig

from ospo_core.config.sections import ModelConfig
from ospo_core.models.emu3.model import Emu3Model
from ospo_core.models.folders import quiet_transformers
from ospo_core.models.loading import load_model
from ospo_core.prompts.families import family
from ospo_core.schema import SubCategory
from tests.support.tiny_janus import SPECIAL as SHAPES_SPECIAL

IMAGE_SIZE, STRIDE, HIDDEN, CODES, MERGES = 32, 8, 32, 48, 600
GRID = IMAGE_SIZE // STRIDE
PAD, BOS, EOS = "<|endoftext|>", "<|extra_203|>", "<|extra_204|>"
TAGS = ("<|extra_200|>", "<|extra_201|>", "<|image start|>", "<|image end|>", "<|image token|>", "<image>")
"""Row end, end of frame, begin and end of image, what follows its size, and the placeholder."""


def make_tiny_emu3(folder: Path, seed: int = 0, tied: bool = False, codes: Sequence[int] = range(CODES)) -> Path:
    """Write a tiny random Emu3 checkpoint with its tokenizer to `folder` and return the folder.

    Weights are larger than usual at the start, so that different prompts give clearly different logits. `codes` is the
    order of the codes in the vocabulary.
    """
    tokenizer = make_tokenizer(codes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Emu3ForConditionalGeneration(_config(tokenizer, tied))
        with torch.no_grad():
            for name, weights in model.named_parameters():
                if weights.ndim == 2:
                    weights.normal_(std=1.0 if "embed" in name else 0.25)
    ends = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model.generation_config = GenerationConfig(**ends)
    with quiet_transformers():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def load_tiny_emu3(folder: Path) -> Emu3Model:
    """Load what `make_tiny_emu3` wrote, on the CPU in float32."""
    model = load_model(folder, ModelConfig(path=str(folder), family="emu3", device="cpu", dtype="float32"))
    assert isinstance(model, Emu3Model)
    return model


def visual_token(code: int) -> str:
    """Return the token of a code, as Emu3's tokenizer writes it."""
    return f"<|visual token {code:06d}|>"


def make_tokenizer(codes: Sequence[int] = range(CODES)) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE that adds no begin-of-sequence token, with Emu3's special tokens at its end."""
    core = Tokenizer(BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = ByteLevelDecoder()
    core.post_processor = ByteLevelProcessor(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        _sentences(), BpeTrainer(vocab_size=256 + MERGES, initial_alphabet=alphabet, show_progress=False)
    )
    shapes = [token for token in SHAPES_SPECIAL if token not in ("<pad>", "<bos>", "<eos>", "<unk>")]
    special = [PAD, BOS, EOS, *shapes, *TAGS, *(visual_token(code) for code in codes)]
    core.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
        model_max_length=512,
        extra_special_tokens={
            "image_token": "<image>",
            "boi_token": "<|image start|>",
            "eoi_token": "<|image end|>",
            "image_wrapper_token": "<|image token|>",
            "eof_token": "<|extra_201|>",
        },
    )


def _sentences() -> list[str]:
    """Return examples and answers of the families, so that their words are tokens."""
    emu3, shapes = family("emu3"), family("shapes")
    examples = [example for kind in SubCategory for example in (*emu3.seed_examples(kind), *shapes.seed_examples(kind))]
    answers = [word for word in (*emu3.yes, *emu3.no, *shapes.yes, *shapes.no) for _ in range(50)]
    return [*(emu3.format_prompt(example) for example in examples), *answers]


def _config(tokenizer: PreTrainedTokenizerFast, tied: bool) -> Emu3Config:
    """Return the tiny configuration; the VQ model's stride is Emu3's, and dropout is on, as in its checkpoints."""
    text = Emu3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=1024,
        attention_dropout=0.1,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=tied,
    )
    vq = Emu3VQVAEConfig(
        codebook_size=CODES,
        embed_dim=4,
        latent_channels=4,
        base_channels=32,
        channel_multiplier=[1, 1, 1, 1],
        num_res_blocks=1,
        hidden_size=32,
    )
    return Emu3Config(
        text_config=text,
        vq_config=vq,
        vocabulary_map=tokenizer.get_vocab(),
        tie_word_embeddings=tied,
        image_area=IMAGE_SIZE**2,
    )
