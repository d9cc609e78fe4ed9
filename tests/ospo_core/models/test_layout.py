from __future__ import annotations

import torch

from ospo_core.models.layout import batches, encode_generation, encode_texts, pad_left, positions, unconditional_ids
from ospo_core.models.loading import LoadedModel


def test_rows_end_at_the_same_column_and_padding_is_masked() -> None:
    ids, mask = pad_left([[5, 6, 7], [8]], pad=0)
    assert ids.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]


def test_mask_comes_from_lengths_not_from_the_padding_id() -> None:
    _, mask = pad_left([[0, 0, 7], [8]], pad=0)
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]


def test_no_text_gives_an_empty_batch(tiny: LoadedModel) -> None:
    ids, mask = encode_texts(tiny.tokenizer, [])
    assert ids.shape == mask.shape == (0, 0)


def test_positions_do_not_count_padding() -> None:
    assert positions(torch.tensor([[1, 1, 1], [0, 0, 1], [0, 1, 1]])).tolist() == [[0, 1, 2], [0, 0, 0], [0, 0, 1]]


def test_texts_start_with_one_begin_of_sequence(tiny: LoadedModel) -> None:
    ids, _ = encode_texts(tiny.tokenizer, ["a red circle"])
    assert ids[0, 0] == tiny.special.bos
    assert (ids == tiny.special.bos).sum() == 1


def test_generation_prompts_end_with_begin_of_image(tiny: LoadedModel, prompts: list[str]) -> None:
    ids, mask = encode_generation(tiny, prompts)
    assert (ids[:, -1] == tiny.special.begin_of_image).all()
    assert mask[:, -1].all()
    assert not mask.all()
    assert tiny.tokenizer.unk_token_id not in ids


def test_unconditional_half_keeps_only_begin_of_sequence_and_begin_of_image(tiny: LoadedModel) -> None:
    ids, _ = encode_generation(tiny, ["a red circle", "a star"])
    free = unconditional_ids(ids, tiny.special)
    special = tiny.special
    assert set(free.flatten().tolist()) == {special.bos, special.begin_of_image, special.pad}
    assert (free == special.bos).equal(ids == special.bos)
    assert (free == special.begin_of_image).equal(ids == special.begin_of_image)


def test_batches_cover_every_row_once() -> None:
    assert batches(5, 2) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert batches(0, 2) == []
