"""Tiny random evaluators: a BLIP, an OWLv2, a Grounding DINO, a CLIP and a DPT with the tokenizers of a few words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BlipConfig,
    BlipForQuestionAnswering,
    BlipImageProcessor,
    BlipProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    DPTConfig,
    DPTForDepthEstimation,
    DPTImageProcessor,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    Owlv2Config,
    Owlv2ForObjectDetection,
    Owlv2ImageProcessor,
    Owlv2Processor,
    PreTrainedTokenizerFast,
    SwinConfig,
)

from ospo_core.models.folders import quiet_transformers

SIZE, PATCH, WIDTH = 32, 16, 16
_SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[DEC]")
_WORDS = (
    "yes no a an the photo of object red orange yellow green blue purple pink brown black white colored - ? . is there "
    "are on left right top above below next to cat dog bench bowl circle square star two three cups"
)
_NETWORK = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2}
_VISION = {**_NETWORK, "image_size": SIZE, "patch_size": PATCH}


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of one token a word that frames a text with [CLS] and [SEP]."""
    vocabulary = {word: index for index, word in enumerate([*_SPECIAL, *_WORDS.split()])}
    core = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    core.pre_tokenizer = Whitespace()
    ends = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    core.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        bos_token="[CLS]",
        eos_token="[SEP]",
        unk_token="[UNK]",
        model_max_length=16,
        clean_up_tokenization_spaces=False,
    )


def tiny_blip(folder: Path) -> Path:
    """Write a BLIP for question answering."""
    words = tokenizer()
    text = {
        **_NETWORK,
        "vocab_size": len(words),
        "encoder_hidden_size": WIDTH,
        "projection_dim": WIDTH,
        "max_position_embeddings": 32,
        "bos_token_id": words.convert_tokens_to_ids("[DEC]"),
        "pad_token_id": words.pad_token_id,
        "eos_token_id": words.sep_token_id,
        "sep_token_id": words.sep_token_id,
    }
    config = BlipConfig(text_config=text, vision_config={**_VISION, "projection_dim": WIDTH}, projection_dim=WIDTH)
    images = BlipImageProcessor(size={"height": SIZE, "width": SIZE})
    return _written(BlipForQuestionAnswering, config, BlipProcessor(images, words), folder)


def tiny_owlv2(folder: Path) -> Path:
    """Write an OWLv2."""
    text = {**_NETWORK, **_clip_text()}
    config = Owlv2Config(text_config=text, vision_config=dict(_VISION), projection_dim=WIDTH)
    images = Owlv2ImageProcessor(size={"height": SIZE, "width": SIZE})
    return _written(Owlv2ForObjectDetection, config, Owlv2Processor(images, tokenizer()), folder)


def tiny_clip(folder: Path) -> Path:
    """Write a CLIP."""
    text, vision = {**_NETWORK, **_clip_text(), "projection_dim": WIDTH}, {**_VISION, "projection_dim": WIDTH}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH)
    images = CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})
    return _written(CLIPModel, config, CLIPProcessor(images, tokenizer()), folder)


def tiny_dpt(folder: Path) -> Path:
    """Write a DPT."""
    config = DPTConfig(
        **{**_VISION, "num_hidden_layers": 4},
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        head_in_index=-1,
    )
    images = DPTImageProcessor(size={"height": SIZE, "width": SIZE})
    return _written(DPTForDepthEstimation, config, images, folder)


def tiny_grounding_dino(folder: Path) -> Path:
    """Write a Grounding DINO."""
    words = tokenizer()
    backbone = SwinConfig(
        image_size=64, patch_size=4, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=2,
        out_indices=[2, 3, 4],
    )  # fmt: skip
    text = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    config = GroundingDinoConfig(
        backbone_config=backbone, text_config=text, d_model=32, encoder_layers=1, decoder_layers=2, num_queries=8,
        encoder_ffn_dim=16, decoder_ffn_dim=16, encoder_attention_heads=2, decoder_attention_heads=2,
        num_feature_levels=3, encoder_n_points=2, decoder_n_points=2, max_text_len=16,
    )  # fmt: skip
    images = GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 64})
    return _written(GroundingDinoForObjectDetection, config, GroundingDinoProcessor(images, words), folder)


def _clip_text() -> dict[str, Any]:
    words = tokenizer()
    return {
        "vocab_size": len(words),
        "max_position_embeddings": 16,
        "bos_token_id": words.cls_token_id,
        "eos_token_id": words.sep_token_id,
        "pad_token_id": words.pad_token_id,
    }


def _written(network: Any, config: Any, processor: Any, folder: Path) -> Path:
    """Write random weights and the processor; the same ones in every call."""
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(0)
        model = network(config)
        with torch.no_grad():
            for weights in model.parameters():
                if weights.ndim == 2:
                    weights.normal_(std=0.3)
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    return folder
