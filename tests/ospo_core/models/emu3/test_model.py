"""Emu3 behind the protocol, against transformers' own processor, forward pass and generate."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import Emu3ForConditionalGeneration, Emu3Processor, LlamaForCausalLM
from transformers.models.emu3.image_processing_emu3 import Emu3ImageProcessor

from ospo_core.config.sections import LoraSettings
from ospo_core.models.adapters import add_lora
from ospo_core.models.decoder import is_plain
from ospo_core.models.emu3.model import Emu3Model
from ospo_core.models.export import export_text_backbone
from ospo_core.models.logprobs import image_token_logprobs, mean_logprob
from ospo_core.models.pictures import decode_tokens, encode_pictures, to_pixels
from ospo_core.models.sampling import sample_images
from ospo_core.models.sequences import encode_texts, positions
from ospo_core.models.vqa import answer_questions
from tests.support.tiny_emu3 import CODES, GRID, IMAGE_SIZE, STRIDE, load_tiny_emu3, make_tiny_emu3

PROMPTS = ["a red bench", "a kettle left of a blue bicycle on a wooden table", "two lamps", "a violin"]
QUESTIONS = [["Is there a bench?", "Is the bench red?"], [], ["Is there a violin?"], ["Are there two lamps?"]]


@pytest.fixture(scope="module")
def emu3(tmp_path_factory: pytest.TempPathFactory) -> Emu3Model:
    return load_tiny_emu3(make_tiny_emu3(tmp_path_factory.mktemp("emu3") / "model"))


@cache
def stock(folder: Path) -> Any:
    """The same checkpoint as transformers itself loads it."""
    return Emu3ForConditionalGeneration.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def processor(emu3: Emu3Model) -> Emu3Processor:
    """Transformers' own processor of texts and pictures, for pictures of the tiny size."""
    half = [0.5, 0.5, 0.5]
    images = Emu3ImageProcessor(
        min_pixels=IMAGE_SIZE**2, max_pixels=IMAGE_SIZE**2, spatial_factor=STRIDE, image_mean=half, image_std=half
    )
    return Emu3Processor(images, emu3.tokenizer)


@pytest.fixture(scope="module")
def tokens() -> NDArray[np.uint16]:
    return np.random.default_rng(0).integers(0, CODES, (len(PROMPTS), GRID**2), dtype=np.uint16)


def stock_ids(emu3: Emu3Model, tokens: NDArray[np.uint16]) -> torch.Tensor:
    """The ids of images with their row ends, by transformers' own mapping, `[B, rows * (columns + 1)]`."""
    raster = torch.from_numpy(tokens.astype(np.int64)).unflatten(1, (GRID, GRID))
    mapping = emu3.network.vocabulary_mapping
    return torch.stack([mapping.convert_img2bpe(image).flatten() for image in raster])


@pytest.mark.parametrize("prompt", PROMPTS)
def test_prompts_are_those_of_transformers_own_processor(
    emu3: Emu3Model, processor: Emu3Processor, prompt: str
) -> None:
    made = processor(
        text=[prompt],
        text_kwargs={"return_for_image_generation": True, "add_special_tokens": False},
        images_kwargs={"image_area": IMAGE_SIZE**2},
    )
    ids = emu3.encode_prompts([prompt])[0][0].tolist()
    assert ids == [emu3.tokenizer.bos_token_id, *(number for number in made["input_ids"][0] if number != ids[0])]
    assert made["image_sizes"] == [[GRID, GRID]]


def test_the_unconditional_prompt_is_the_negative_prompt_with_the_size_of_the_image(emu3: Emu3Model) -> None:
    ids, mask = emu3.unconditional(*emu3.encode_prompts(PROMPTS))
    assert mask.all() and len(ids) == len(PROMPTS)
    text = emu3.tokenizer.decode(ids[0])
    assert text.startswith("<|extra_203|>lowres, bad anatomy") and text.endswith(
        "blurry.<|image start|>4*4<|image token|>"
    )


def stock_generate(emu3: Emu3Model, prompt: str, guidance: float) -> torch.Tensor:
    """The image of transformers' own `generate`, most probable tokens, constrained as in its documentation."""
    ids, mask = emu3.encode_prompts([prompt])
    vocabulary = emu3.tokenizer.get_vocab()

    def allowed(_row: int, before: torch.Tensor) -> Sequence[int]:
        count = len(before) - ids.shape[1] + 1
        if count % (GRID + 1) == 0:
            return [vocabulary["<|extra_200|>"]]
        return emu3.network.vocabulary_mapping.image_tokens

    negative, negative_mask = emu3.unconditional(ids, mask)
    found: torch.Tensor = stock(emu3.folder).generate(
        ids,
        attention_mask=mask,
        max_new_tokens=GRID * (GRID + 1),
        do_sample=False,
        prefix_allowed_tokens_fn=allowed,
        guidance_scale=guidance,
        negative_prompt_ids=negative,
        negative_prompt_attention_mask=negative_mask,
    )
    return found[:, ids.shape[1] :]


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_tokens_are_those_of_transformers_own_generate(emu3: Emu3Model, guidance: float) -> None:
    ours = sample_images(emu3, PROMPTS, [1, 2, 3, 4], guidance, 0.0, batch_size=4).tokens
    assert len(np.unique(ours)) > 4
    for prompt, image in zip(PROMPTS, ours, strict=True):
        assert stock_ids(emu3, image[None]).equal(stock_generate(emu3, prompt, guidance))


def test_log_probabilities_are_those_of_a_plain_forward(emu3: Emu3Model, tokens: NDArray[np.uint16]) -> None:
    images = stock_ids(emu3, tokens)
    found = mean_logprob(emu3, PROMPTS, tokens, batch_size=4)
    codes = torch.tensor(emu3.ids.codes)
    for prompt, image, mean in zip(PROMPTS, images, found, strict=True):
        ids = emu3.encode_prompts([prompt])[0]
        with torch.no_grad():
            logits = stock(emu3.folder)(input_ids=torch.cat([ids, image[None]], dim=1)).logits[0, ids.shape[1] - 1 : -1]
        drawn = image != emu3.ids.row_end  # row ends are forced, so they say nothing about the image
        among_codes = logits[:, codes].log_softmax(dim=-1)[drawn]
        places = image[drawn][:, None] == codes
        assert drawn.sum() == GRID**2
        assert among_codes[places].mean().item() == pytest.approx(mean, abs=1e-5)


def test_codes_may_stand_anywhere_in_the_vocabulary(tmp_path: Path) -> None:
    turned = load_tiny_emu3(make_tiny_emu3(tmp_path / "turned", codes=range(CODES)[::-1]))
    ours = sample_images(turned, PROMPTS[:1], [1], 3.0, 0.0, batch_size=1).tokens
    assert stock_ids(turned, ours).equal(stock_generate(turned, PROMPTS[0], 3.0))


def test_pictures_become_tokens_and_back_as_in_transformers(emu3: Emu3Model, tokens: NDArray[np.uint16]) -> None:
    pictures = decode_tokens(emu3, tokens)
    assert pictures.shape == (len(tokens), IMAGE_SIZE, IMAGE_SIZE, 3)
    ends = torch.zeros((len(tokens), 3), dtype=torch.int64)  # end of frame, end of image, end of sequence
    generated = torch.cat([stock_ids(emu3, tokens), ends], dim=1)
    decoded = stock(emu3.folder).decode_image_tokens(image_tokens=generated, height=GRID, width=GRID)
    own = emu3.decode_image(torch.from_numpy(tokens.astype(np.int64)))
    assert own.shape == (len(tokens), 3, IMAGE_SIZE, IMAGE_SIZE) and torch.allclose(own, decoded, atol=1e-5)
    pixels = to_pixels(pictures)
    with torch.no_grad():
        expected = stock(emu3.folder).model.get_image_tokens(
            pixels, torch.tensor([[IMAGE_SIZE, IMAGE_SIZE]] * len(pixels))
        )
    again = encode_pictures(emu3, pixels, batch_size=2)
    assert again.shape == tokens.shape and len(again.unique()) > 4
    assert stock_ids(emu3, again.numpy().astype(np.uint16)).flatten().equal(expected)


def test_answers_are_those_of_a_plain_forward_over_what_the_processor_makes(
    emu3: Emu3Model, processor: Emu3Processor
) -> None:
    pictures = np.random.default_rng(3).integers(0, 256, (4, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    answers = answer_questions(emu3, pictures, QUESTIONS, batch_size=4)
    assert [len(found) for found in answers] == [2, 0, 1, 1]
    for picture, asked, found in zip(pictures, QUESTIONS, answers, strict=True):
        for question, answer in zip(asked, found, strict=True):
            text = f"You are a helpful assistant. USER: <image>{question} Answer with yes or no. ASSISTANT:"
            inputs = processor(images=[Image.fromarray(picture)], text=[text], return_tensors="pt")
            ids = inputs["input_ids"][:, int(inputs["input_ids"][0, 1] == emu3.tokenizer.bos_token_id) :]
            with torch.no_grad():
                logits = stock(emu3.folder)(
                    input_ids=ids, pixel_values=inputs["pixel_values"], image_sizes=inputs["image_sizes"]
                ).logits
            chances = logits[0, -1].softmax(dim=-1)
            expected = [float(chances[spellings].max()) for spellings in emu3.answer_ids]
            assert np.allclose(answer, expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("tied", [False, True])
def test_the_export_gives_the_logits_of_the_unified_model(tmp_path: Path, tied: bool) -> None:
    emu3 = load_tiny_emu3(make_tiny_emu3(tmp_path / "emu3", tied=tied))
    found: Any = LlamaForCausalLM.from_pretrained(
        export_text_backbone(emu3.folder, tmp_path / "llama"), output_loading_info=True
    )
    llama, info = found
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert llama.config.tie_word_embeddings is tied and llama.config.architectures == ["LlamaForCausalLM"]
    ids, mask = encode_texts(emu3.tokenizer, [*PROMPTS, "<|image start|>4*4"])
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions(mask)}
    with torch.no_grad():
        assert torch.allclose(llama(**inputs).logits, stock(emu3.folder)(**inputs).logits, atol=1e-5)


def test_only_the_language_model_s_projections_are_trainable(emu3: Emu3Model) -> None:
    adapted = add_lora(load_tiny_emu3(emu3.folder), LoraSettings(rank=4))
    trainable = {name for name, weights in adapted.named_parameters() if weights.requires_grad}
    assert all(".model.text_model.layers." in name and ".lora_" in name for name in trainable)
    assert len(trainable) == 2 * 7 * 2  # layers, projections, matrices


def test_what_is_trained_is_what_was_scored_although_the_checkpoint_has_dropout(
    emu3: Emu3Model, tokens: NDArray[np.uint16]
) -> None:
    stored = json.loads((emu3.folder / "config.json").read_text())
    assert stored["text_config"]["attention_dropout"] == 0.1
    loaded = load_tiny_emu3(emu3.folder)
    adapted = add_lora(loaded, LoraSettings(rank=4, dropout=0.0)).train()
    assert adapted.training
    ids, mask = loaded.encode_prompts(PROMPTS)
    trained = image_token_logprobs(loaded, ids, mask, torch.from_numpy(tokens.astype(np.int64)))
    trained.sum().backward()
    scored = mean_logprob(emu3, PROMPTS, tokens, batch_size=4)
    assert np.allclose(trained.detach().mean(dim=1).numpy(), scored, atol=1e-5)


def test_the_language_model_is_decoded_as_a_llama_with_the_checkpoint_s_own_weights(emu3: Emu3Model) -> None:
    assert is_plain(emu3.backbone)
    theirs = stock(emu3.folder).state_dict()
    ours = emu3.network.state_dict()
    assert ours.keys() == theirs.keys() and all(ours[name].equal(theirs[name]) for name in theirs)
    assert not any(weights.requires_grad for weights in emu3.network.parameters())
    assert emu3.memory.parameters == sum(weights.numel() for weights in stock(emu3.folder).parameters())
