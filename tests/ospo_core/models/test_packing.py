"""Packed rows: nothing but the padding and the repetitions is left out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ospo_core.models.janus.model import JanusModel
from ospo_core.models.logprobs import at_offsets, image_token_logprobs, run_image_sequence
from ospo_core.models.packing import pack, run_packed
from tests.support.tiny_janus import CODES, TOKENS

Rows = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@pytest.fixture
def rows(tiny: JanusModel) -> Rows:
    """Return rows of which some begin alike, in prompt and picture, two are equal, and one has no caption."""
    texts = [
        "a red circle",
        "two circles",
        "a red circle",
        "a red square left of a star",
        "a red circle",
        "a red circle",
    ]
    ids, mask = tiny.encode_prompts(texts)
    ids[5:], mask[5:] = tiny.unconditional(ids[5:], mask[5:])
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, CODES, (len(texts), TOKENS)))
    tokens[2, :7] = tokens[0, :7]
    tokens[4] = tokens[0]
    return ids, mask, tokens


@torch.no_grad()
def test_states_of_packed_rows_are_those_of_padded_ones(tiny: JanusModel, rows: Rows) -> None:
    ids, mask, tokens = rows
    packing = pack(tiny, *rows)
    states = run_packed(tiny, packing, ids, tokens[:, :-1])
    plain = run_image_sequence(tiny, ids, mask, tokens[:, :-1])
    expected = at_offsets(plain, ids.shape[1] - 1, range(TOKENS))
    torch.testing.assert_close(states[packing.predicting], expected, rtol=1e-5, atol=1e-5)


def test_equal_beginnings_stand_once(tiny: JanusModel, rows: Rows) -> None:
    ids, mask, tokens = rows
    packing, lengths = pack(tiny, *rows), mask.sum(dim=1).tolist()
    sequences = [
        [*row[len(row) - length :], *(CODES + code for code in codes[:-1])]
        for row, length, codes in zip(ids.tolist(), lengths, tokens.tolist(), strict=True)
    ]
    beginnings = {tuple(each[: end + 1]) for each in sequences for end in range(len(each))}
    assert len(packing.depths) == len(beginnings) < int(mask.sum()) + tokens[:, 1:].numel()
    assert sorted(packing.depths.tolist()) == sorted(len(each) - 1 for each in beginnings)
    for row, sequence in enumerate(sequences):
        places = packing.places[row, : len(sequence)].tolist()
        assert len(set(places)) == len(sequence)
        assert packing.depths[places].tolist() == list(range(len(sequence)))
    assert packing.places.flatten()[packing.owners].equal(torch.arange(len(packing.depths)))


@torch.no_grad()
def test_one_row_alone_gives_what_it_gives_among_others(
    tiny: JanusModel, prompts: list[str], images: NDArray[np.uint16]
) -> None:
    ids, mask = tiny.encode_prompts([*prompts, *prompts])
    tokens = torch.from_numpy(images.astype(np.int64)).repeat(2, 1)
    together = image_token_logprobs(tiny, ids, mask, tokens)
    assert together[: len(prompts)].equal(together[len(prompts) :])
    for row in range(len(prompts)):
        alone = image_token_logprobs(tiny, *tiny.encode_prompts(prompts[row : row + 1]), tokens[row : row + 1])
        torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_attention_is_put_back(tiny: JanusModel, rows: Rows) -> None:
    before = tiny.backbone.config._attn_implementation
    image_token_logprobs(tiny, *rows)
    assert tiny.backbone.config._attn_implementation == before
