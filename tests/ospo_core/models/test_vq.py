from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ospo_core.errors import ModelError
from ospo_core.models.loading import LoadedModel, from_pixels, to_pixels
from ospo_core.models.vq import decode_tokens, encode_pictures, nearest_codes


def test_nearest_code_is_by_direction_not_by_length() -> None:
    codebook = torch.tensor([[10.0, 0.0], [0.0, 0.1]])
    latents = torch.tensor([[0.02, 0.01], [0.3, 5.0]])
    raw = torch.cdist(latents, codebook).argmin(dim=-1)
    assert nearest_codes(latents, codebook).tolist() == [0, 1]
    assert raw.tolist() == [1, 1]  # what a search without normalising finds


def test_latents_equal_to_what_the_decoder_reads_encode_to_their_own_codes(tiny: LoadedModel) -> None:
    tokens = torch.arange(tiny.image_tokens)[None]
    quantize = tiny.model.model.vqmodel.quantize
    latents = quantize.get_codebook_entry(tokens).permute(0, 2, 3, 1).flatten(1, 2)
    assert nearest_codes(latents, quantize.embedding.weight).equal(tokens)
    assert not quantize(latents.reshape(1, tiny.grid, tiny.grid, -1).permute(0, 3, 1, 2))[2].equal(tokens[0])


def test_encoding_normalises_latents_and_codebook(tiny: LoadedModel) -> None:
    pixels = to_pixels(np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8))
    vq = tiny.model.model.vqmodel
    with torch.no_grad():
        latents = vq.quant_conv(vq.encoder(pixels)).permute(0, 2, 3, 1)
        unit = torch.nn.functional.normalize(latents, dim=-1).reshape(-1, latents.shape[-1])
        book = torch.nn.functional.normalize(vq.quantize.embedding.weight, dim=-1)
        expected = torch.cdist(unit, book).argmin(dim=-1).reshape(3, -1)
    assert encode_pictures(tiny, pixels, batch_size=2).equal(expected)


def test_pictures_have_the_size_of_the_model_and_do_not_depend_on_the_batch(
    tiny: LoadedModel, images: NDArray[np.uint16]
) -> None:
    together, alone = decode_tokens(tiny, images), decode_tokens(tiny, images, batch_size=1)
    assert together.shape == (len(images), 32, 32, 3)
    assert together.dtype == np.uint8
    assert np.abs(together.astype(int) - alone).max() <= 1


def test_empty_batches_give_empty_results(tiny: LoadedModel) -> None:
    assert decode_tokens(tiny, np.empty((0, 16), dtype=np.uint16)).shape == (0, 32, 32, 3)
    assert encode_pictures(tiny, torch.empty((0, 3, 32, 32))).shape == (0, 16)


def test_pixels_survive_the_way_there_and_back() -> None:
    picture = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    pixels = to_pixels(picture)
    assert (float(pixels.min()), float(pixels.max())) == (-1.0, 1.0)
    assert np.array_equal(from_pixels(pixels), picture)


def test_pixels_outside_the_range_are_clipped() -> None:
    assert from_pixels(torch.tensor([-3.0, 0.0, 3.0]).reshape(1, 3, 1, 1)).flatten().tolist() == [0, 128, 255]


@pytest.mark.parametrize("tokens", [np.zeros((2, 15), dtype=np.int64), np.full((1, 16), 48), np.full((1, 16), -1)])
def test_wrong_tokens_are_refused(tiny: LoadedModel, tokens: NDArray[np.int64]) -> None:
    with pytest.raises(ModelError, match="tokens"):
        decode_tokens(tiny, tokens)


def test_pictures_of_another_size_are_refused(tiny: LoadedModel) -> None:
    with pytest.raises(ModelError, match="pictures must be"):
        encode_pictures(tiny, torch.zeros((1, 3, 64, 64)))
