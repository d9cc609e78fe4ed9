from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ospo_core.config.sections import LoraSettings
from ospo_core.models import logprobs
from ospo_core.models.adapters import add_lora
from ospo_core.models.janus.model import JanusModel
from ospo_core.models.logprobs import at_offsets, image_token_logprobs, mean_logprob
from tests.support.tiny_janus import CODES, load_tiny_janus


def batch(tiny: JanusModel, prompts: list[str], images: NDArray[np.uint16]) -> tuple[torch.Tensor, ...]:
    return *tiny.encode_prompts(prompts), torch.from_numpy(images.astype(np.int64))


@torch.no_grad()
def test_batch_of_one_equals_batch_of_all(tiny: JanusModel, prompts: list[str], images: NDArray[np.uint16]) -> None:
    together = image_token_logprobs(tiny, *batch(tiny, prompts, images))
    assert together.shape == images.shape
    for row in range(len(prompts)):
        alone = image_token_logprobs(tiny, *batch(tiny, prompts[row : row + 1], images[row : row + 1]))
        assert torch.allclose(alone[0], together[row], atol=1e-5)


@torch.no_grad()
def test_what_padding_holds_does_not_matter(tiny: JanusModel, prompts: list[str], images: NDArray[np.uint16]) -> None:
    ids, mask, tokens = batch(tiny, prompts, images)
    other = ids.masked_fill(mask == 0, 20)
    before = image_token_logprobs(tiny, ids, mask, tokens)
    assert image_token_logprobs(tiny, other, mask, tokens).equal(before)


@torch.no_grad()
def test_a_token_s_chances_sum_to_one_and_do_not_know_the_future(tiny: JanusModel) -> None:
    ids, mask = (part.expand(CODES, -1) for part in tiny.encode_prompts(["a star"]))
    tokens = torch.zeros((CODES, 16), dtype=torch.int64)
    tokens[:, 5] = torch.arange(CODES)
    logprobs = image_token_logprobs(tiny, ids, mask, tokens)
    assert logprobs[:, 5].exp().sum() == pytest.approx(1.0, abs=1e-4)
    assert torch.allclose(logprobs[:, :5], logprobs[:1, :5].expand(CODES, -1), atol=1e-5)
    assert not torch.allclose(logprobs[:, 6], logprobs[:1, 6].expand(CODES), atol=1e-3)


@pytest.mark.parametrize("rows", [0, 1, 3], ids=["less than a row", "one row", "three rows"])
def test_logits_in_parts_change_nothing(
    tiny: JanusModel, prompts: list[str], images: NDArray[np.uint16], monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    """Neither without gradients nor with them, and no part has more rows than fit."""
    model = load_tiny_janus(tiny.folder)
    adapted = add_lora(model, LoraSettings(rank=4, dropout=0.0))
    data = batch(tiny, prompts, images)
    results: list[list[torch.Tensor]] = []
    sizes: list[int] = []
    model.network.model.generation_head.register_forward_hook(lambda _module, _inputs, out: sizes.append(len(out)))
    for at_once in (2**25, rows * images.shape[1] * CODES):
        monkeypatch.setattr(logprobs, "LOGITS_AT_ONCE", at_once)
        with torch.no_grad():
            plain = image_token_logprobs(model, *data)
        adapted.zero_grad()
        trained = image_token_logprobs(model, *data)
        trained.mean().backward()
        gradients = [weights.grad for weights in adapted.parameters() if weights.grad is not None]
        results.append([plain, trained, *gradients])
    assert len(results[0]) > 2
    assert sizes[:2] == [len(images)] * 2  # without gradients, and with them
    assert sum(sizes[2:]) == 2 * len(images) and max(sizes[2:]) == max(rows, 1)  # never again for the backward pass
    for whole, parted in zip(*results, strict=True):
        torch.testing.assert_close(parted, whole, rtol=1e-6, atol=1e-6)


def test_means_are_those_of_the_tokens_for_any_batch_size(
    tiny: JanusModel, prompts: list[str], images: NDArray[np.uint16]
) -> None:
    with torch.no_grad():
        expected = image_token_logprobs(tiny, *batch(tiny, prompts, images)).mean(dim=1).numpy()
    for batch_size in (1, 3, 10):
        assert np.allclose(mean_logprob(tiny, prompts, images, batch_size), expected, atol=1e-5)


def test_gradients_reach_the_adapters_only_and_accumulate_as_one_batch(
    tiny: JanusModel, prompts: list[str], images: NDArray[np.uint16]
) -> None:
    model = load_tiny_janus(tiny.folder)
    adapted = add_lora(model, LoraSettings(rank=4, dropout=0.0))
    data = batch(tiny, prompts, images)
    image_token_logprobs(model, *data).mean().backward()
    together = {name: weights.grad.clone() for name, weights in adapted.named_parameters() if weights.grad is not None}
    adapted.zero_grad()
    for row in range(len(prompts)):
        one = batch(tiny, prompts[row : row + 1], images[row : row + 1])
        (image_token_logprobs(model, *one).mean() / len(prompts)).backward()
    assert together
    assert all("lora_" in name for name in together)
    for name, weights in adapted.named_parameters():
        if name in together:
            assert weights.grad is not None
            assert torch.allclose(weights.grad, together[name], rtol=1e-3, atol=1e-5)


def test_values_at_offsets_are_a_view_where_these_are_consecutive() -> None:
    values = torch.arange(12).reshape(2, 6)
    assert at_offsets(values, 1, range(3)).tolist() == [[1, 2, 3], [7, 8, 9]]
    assert at_offsets(values, 1, range(3)).data_ptr() == values[:, 1:].data_ptr()
    assert at_offsets(values, 1, [0, 1, 3, 4]).tolist() == [[1, 2, 4, 5], [7, 8, 10, 11]]
    assert at_offsets(values, 2, [0, 0, 1]).tolist() == [[2, 2, 3], [8, 8, 9]]


def test_images_without_a_prompt_each_are_refused(tiny: JanusModel, images: NDArray[np.uint16]) -> None:
    with pytest.raises(ValueError, match="1 prompts but 4 images"):
        mean_logprob(tiny, ["a star"], images, 2)
