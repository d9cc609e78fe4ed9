"""Janus behind the protocol, against transformers' own code; and the traps of its VQ model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import LlamaForCausalLM, Qwen2Config

from ospo_core.config.sections import LoraSettings
from ospo_core.errors import ModelError
from ospo_core.models.adapters import add_lora
from ospo_core.models.export import export_text_backbone
from ospo_core.models.janus.model import JanusModel, nearest_codes
from ospo_core.models.pictures import encode_pictures, to_pixels
from ospo_core.models.sampling import sample_images
from ospo_core.models.sequences import encode_texts, positions
from ospo_core.models.vqa import answer_questions
from tests.support.tiny_janus import load_tiny_janus, make_tiny_janus

TEXTS = ["<|User|> : ask about : a red circle . <|Assistant|> :", "<|User|> : a star"]
QUESTIONS = [
    ["is there a red circle ?", "are there two shapes ?", "is the red circle left of the blue square ?"],
    [],
    ["is there a star ?"],
    ["is there a blue square ?", "is the blue square left of the star ?"],
]


@pytest.fixture(scope="module")
def pictures() -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)


def test_generation_prompts_end_with_begin_of_image(tiny: JanusModel, prompts: list[str]) -> None:
    ids, mask = tiny.encode_prompts(prompts)
    assert (ids[:, -1] == tiny.special.begin_of_image).all()
    assert mask[:, -1].all()
    assert not mask.all()
    assert tiny.tokenizer.unk_token_id not in ids


def test_unconditional_half_keeps_only_begin_of_sequence_and_begin_of_image(tiny: JanusModel) -> None:
    ids, mask = tiny.encode_prompts(["a red circle", "a star"])
    free, kept = tiny.unconditional(ids, mask)
    assert kept.equal(mask)
    special = tiny.special
    assert set(free.flatten().tolist()) == {special.bos, special.begin_of_image, special.pad}
    assert (free == special.bos).equal(ids == special.bos)
    assert (free == special.begin_of_image).equal(ids == special.begin_of_image)


@pytest.mark.parametrize("guidance", [1.5, 5.0])
def test_tokens_are_those_of_transformers_own_generate(tiny: JanusModel, prompts: list[str], guidance: float) -> None:
    ids, mask = tiny.encode_prompts(prompts)
    stock: Any = tiny.network
    reference = stock.generate(
        ids, attention_mask=mask, generation_mode="image", do_sample=False, guidance_scale=guidance, use_cache=True
    )
    ours = sample_images(tiny, prompts, [1, 2, 3, 4], guidance, 0.0, batch_size=4)
    assert len(np.unique(ours.tokens)) > 4
    assert np.array_equal(ours.tokens, reference.numpy())


def stock_answer(tiny: JanusModel, picture: NDArray[np.uint8], question: str) -> tuple[float, float]:
    """The answer by transformers' own forward pass over the whole text and the picture."""
    text = tiny.family.vqa_text(question).replace("{image}", "<image_placeholder>" * tiny.geometry.tokens)
    encoded = tiny.tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        output = tiny.network(
            input_ids=encoded["input_ids"],
            attention_mask=encoded["attention_mask"],
            pixel_values=to_pixels(picture[None]),
        )
    chances = output.logits[0, -1].softmax(dim=-1)
    vocabulary = tiny.tokenizer.get_vocab()
    return float(chances[vocabulary["yes"]]), float(chances[vocabulary["no"]])


def test_answers_are_those_of_transformers_own_forward(tiny: JanusModel, pictures: NDArray[np.uint8]) -> None:
    answers = answer_questions(tiny, pictures, QUESTIONS, batch_size=4)
    assert [len(found) for found in answers] == [3, 0, 1, 2]
    for picture, asked, found in zip(pictures, QUESTIONS, answers, strict=True):
        for question, answer in zip(asked, found, strict=True):
            assert np.allclose(answer, stock_answer(tiny, picture, question), rtol=1e-4, atol=1e-8)


def test_nearest_code_is_by_direction_not_by_length() -> None:
    codebook = torch.tensor([[10.0, 0.0], [0.0, 0.1]])
    latents = torch.tensor([[0.02, 0.01], [0.3, 5.0]])
    raw = torch.cdist(latents, codebook).argmin(dim=-1)
    assert nearest_codes(latents, codebook).tolist() == [0, 1]
    assert raw.tolist() == [1, 1]  # what a search without normalising finds


def test_latents_equal_to_what_the_decoder_reads_encode_to_their_own_codes(tiny: JanusModel) -> None:
    tokens = torch.arange(tiny.geometry.tokens)[None]
    quantize = tiny.network.model.vqmodel.quantize
    latents = quantize.get_codebook_entry(tokens).permute(0, 2, 3, 1).flatten(1, 2)
    assert nearest_codes(latents, quantize.embedding.weight).equal(tokens)
    raster = latents.reshape(1, 4, 4, -1).permute(0, 3, 1, 2)
    assert not quantize(raster)[2].equal(tokens[0])


def test_encoding_normalises_latents_and_codebook(tiny: JanusModel) -> None:
    pixels = to_pixels(np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8))
    vq = tiny.network.model.vqmodel
    with torch.no_grad():
        latents = vq.quant_conv(vq.encoder(pixels)).permute(0, 2, 3, 1)
        unit = torch.nn.functional.normalize(latents, dim=-1).reshape(-1, latents.shape[-1])
        book = torch.nn.functional.normalize(vq.quantize.embedding.weight, dim=-1)
        expected = torch.cdist(unit, book).argmin(dim=-1).reshape(3, -1)
    assert encode_pictures(tiny, pixels, batch_size=2).equal(expected)


@pytest.mark.parametrize("tied", [False, True])
def test_the_export_gives_the_logits_of_the_unified_model(tmp_path: Path, tied: bool) -> None:
    janus = load_tiny_janus(make_tiny_janus(tmp_path / "janus", tied=tied))
    out = export_text_backbone(janus.folder, tmp_path / "llama")
    found: Any = LlamaForCausalLM.from_pretrained(out, output_loading_info=True)
    llama, info = found
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert llama.config.tie_word_embeddings is tied
    assert llama.config.architectures == ["LlamaForCausalLM"]
    ids, mask = encode_texts(janus.tokenizer, TEXTS)
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions(mask)}
    with torch.no_grad():
        assert llama(**inputs).logits.equal(janus.network(**inputs).logits)


def test_a_language_model_that_is_no_llama_is_refused(tiny_folder: Path) -> None:
    loaded = load_tiny_janus(tiny_folder)
    loaded.network.config.text_config = Qwen2Config()
    with pytest.raises(ModelError, match=r"not a Llama .got 'qwen2'"):
        JanusModel.text_backbone(loaded.network, loaded.tokenizer)


def test_only_the_language_model_s_projections_are_trainable(tiny_folder: Path) -> None:
    adapted = add_lora(load_tiny_janus(tiny_folder), LoraSettings(rank=4))
    trainable = {name for name, weights in adapted.named_parameters() if weights.requires_grad}
    kinds = {name.split(".lora_")[0].rsplit(".", 1)[1] for name in trainable}
    assert kinds == {f"{kind}_proj" for kind in ("q", "k", "v", "o", "gate", "up", "down")}
    assert all(".model.language_model.layers." in name and ".lora_" in name for name in trainable)
    assert len(trainable) == 2 * 7 * 2  # layers, projections, matrices
