from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ospo_core.errors import ModelError
from ospo_core.models.janus.model import JanusModel
from ospo_core.models.pictures import decode_tokens, encode_pictures, from_pixels, to_pixels


def test_pictures_have_the_size_of_the_model_and_do_not_depend_on_the_batch(
    tiny: JanusModel, images: NDArray[np.uint16]
) -> None:
    together, alone = decode_tokens(tiny, images), decode_tokens(tiny, images, batch_size=1)
    assert together.shape == (len(images), 32, 32, 3)
    assert together.dtype == np.uint8
    assert np.abs(together.astype(int) - alone).max() <= 1


def test_equal_tokens_are_decoded_once(
    tiny: JanusModel, images: NDArray[np.uint16], monkeypatch: pytest.MonkeyPatch
) -> None:
    decode, seen = tiny.decode_image, list[int]()
    monkeypatch.setattr(tiny, "decode_image", lambda tokens: (seen.append(len(tokens)), decode(tokens))[1])
    order = [3, 0, 3, 1, 0]
    repeated = decode_tokens(tiny, images[order])
    assert sum(seen) == 3
    monkeypatch.undo()
    assert np.abs(repeated.astype(int) - decode_tokens(tiny, images)[order]).max() <= 1


def test_the_vq_model_s_own_decoder_gives_the_same_pixels(tiny: JanusModel, images: NDArray[np.uint16]) -> None:
    tokens = torch.from_numpy(images.astype(np.int64))
    with torch.inference_mode():
        expected = tiny.network.model.vqmodel.decode(tokens)
        assert torch.allclose(tiny.decode_image(tokens), expected, atol=1e-4)


def test_empty_batches_give_empty_results(tiny: JanusModel) -> None:
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
def test_wrong_tokens_are_refused(tiny: JanusModel, tokens: NDArray[np.int64]) -> None:
    with pytest.raises(ModelError, match="tokens"):
        decode_tokens(tiny, tokens)


def test_pictures_of_another_size_are_refused(tiny: JanusModel) -> None:
    with pytest.raises(ModelError, match="pictures must be"):
        encode_pictures(tiny, torch.zeros((1, 3, 64, 64)))
