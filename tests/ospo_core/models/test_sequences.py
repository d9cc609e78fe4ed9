from __future__ import annotations

import pytest
import torch

from ospo_core.errors import ModelError
from ospo_core.models.janus.model import JanusModel
from ospo_core.models.sequences import encode_texts, pad_left, positions, single_token_ids, stack_left


def test_rows_end_at_the_same_column_and_padding_is_masked() -> None:
    ids, mask = pad_left([[5, 6, 7], [8]], pad=0)
    assert ids.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]


def test_mask_comes_from_lengths_not_from_the_padding_id() -> None:
    _, mask = pad_left([[0, 0, 7], [8]], pad=0)
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]


def test_no_text_gives_an_empty_batch(tiny: JanusModel) -> None:
    ids, mask = encode_texts(tiny.tokenizer, [])
    assert ids.shape == mask.shape == (0, 0)


def test_batches_of_other_lengths_are_stacked_under_each_other_s_last_columns() -> None:
    ids, mask = stack_left([pad_left([[5, 6, 7], [8]], pad=0), pad_left([[9, 4]], pad=0)], pad=3)
    assert ids.tolist() == [[5, 6, 7], [0, 0, 8], [3, 9, 4]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1], [0, 1, 1]]


def test_positions_do_not_count_padding() -> None:
    assert positions(torch.tensor([[1, 1, 1], [0, 0, 1], [0, 1, 1]])).tolist() == [[0, 1, 2], [0, 0, 0], [0, 0, 1]]


def test_texts_start_with_one_begin_of_sequence(tiny: JanusModel) -> None:
    ids, _ = encode_texts(tiny.tokenizer, ["a red circle"])
    assert ids[0, 0] == tiny.special.bos
    assert (ids == tiny.special.bos).sum() == 1


def test_spellings_that_are_no_single_token_are_omitted(tiny: JanusModel) -> None:
    vocabulary = tiny.tokenizer.get_vocab()
    assert single_token_ids(tiny.tokenizer, ["yes", " yes", "yes yes", "oui"]) == [vocabulary["yes"]]
    with pytest.raises(ModelError, match="no spelling"):
        single_token_ids(tiny.tokenizer, ["oui", "oui oui"])
