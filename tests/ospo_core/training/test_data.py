"""Pairs to micro-batches."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ospo_core.config.sections import LossConfig
from ospo_core.errors import TrainingError
from ospo_core.models.janus.model import JanusModel
from ospo_core.training.data import PairData
from tests.ospo_core.training.jobs import config, write_pairs
from tests.support.tiny_janus import TOKENS


def data(path: Path, loaded: JanusModel, seed: int = 3, **options: Any) -> PairData:
    return PairData(path, loaded, config(**options), seed)


def test_an_epoch_holds_every_pair_once_and_the_next_has_another_order(pairs_path: Path, loaded: JanusModel) -> None:
    pairs = data(pairs_path, loaded, batch_size=3, accumulation=1)
    first, second = (np.concatenate([pairs.indices(step) for step in range(e * 4, e * 4 + 4)]) for e in (0, 1))
    assert sorted(first) == sorted(second) == list(range(12))
    assert first.tolist() != second.tolist()


def test_so_many_pairs_as_asked_are_drawn_by_the_seed(pairs_path: Path, loaded: JanusModel) -> None:
    whole = data(pairs_path, loaded)
    few, again, other = (data(pairs_path, loaded, seed, max_pairs=5) for seed in (3, 3, 4))
    assert len(few) == 5 and len(data(pairs_path, loaded, max_pairs=50)) == len(whole)

    def images(pairs: PairData) -> set[tuple[int, ...]]:
        steps = range(len(pairs))
        return {tuple(row) for step in steps for row in pairs.micro_batch(step, 0).tokens[:1].tolist()}

    assert images(few) == images(again) != images(other)
    assert images(few) <= images(whole)


def test_a_step_may_run_over_into_the_next_epoch_and_need_more_pairs_than_there_are(
    pairs_path: Path, loaded: JanusModel
) -> None:
    pairs = data(pairs_path, loaded, batch_size=15, accumulation=2)
    counts = Counter(np.concatenate([pairs.indices(step) for step in range(2)]).tolist())
    assert set(counts.values()) == {5}


def test_the_order_depends_on_seed_and_step_alone(pairs_path: Path, loaded: JanusModel) -> None:
    pairs, again = (data(pairs_path, loaded) for _ in range(2))
    later = again.indices(5).tolist()
    assert [pairs.indices(step).tolist() for step in range(6)][5] == later
    assert data(pairs_path, loaded, seed=4).indices(5).tolist() != later


def test_how_a_step_is_cut_changes_nothing(pairs_path: Path, loaded: JanusModel) -> None:
    whole = data(pairs_path, loaded, batch_size=8, accumulation=1, caption_dropout=0.5)
    single = data(pairs_path, loaded, batch_size=1, accumulation=8, caption_dropout=0.5)
    assert whole.indices(3).tolist() == single.indices(3).tolist()
    parts = [single.micro_batch(3, part) for part in range(8)]
    together = whole.micro_batch(3, 0)
    assert torch.cat([part.tokens[0] for part in parts]).equal(together.tokens[:8].flatten())
    assert torch.cat([part.dropped for part in parts]).equal(together.dropped)


def test_the_groups_are_chosen_rejected_negative_and_without_caption(tmp_path: Path, loaded: JanusModel) -> None:
    path = write_pairs(tmp_path / "p", count=1, prompt="a red circle", negative_prompt="a large blue circle")
    batch = data(path, loaded, batch_size=1, accumulation=1, caption_dropout=1.0).micro_batch(0, 0)
    expected, _ = loaded.encode_prompts(["a red circle", "a red circle", "a large blue circle"])
    assert batch.input_ids[:3].equal(expected)
    assert batch.tokens[0].equal(batch.tokens[2]) and batch.tokens[0].equal(batch.tokens[3])
    assert not batch.tokens[0].equal(batch.tokens[1])
    special = loaded.special
    assert batch.attention_mask[3].equal(batch.attention_mask[0])
    assert set(batch.input_ids[3].tolist()) == {special.bos, special.begin_of_image, special.pad}


def test_unused_groups_are_left_out(pairs_path: Path, loaded: JanusModel) -> None:
    loss = LossConfig(w_simpo=0.0, w_cond=0.0)
    batch = data(pairs_path, loaded, loss=loss, caption_dropout=0.0).micro_batch(0, 0)
    assert batch.tokens.shape == (4, TOKENS)
    assert (batch.has_rejected, batch.has_negative, batch.mask) == (False, False, None)


def test_masks_follow_their_images(pairs_path: Path, loaded: JanusModel) -> None:
    loss = LossConfig(object_weight=1.0)
    batch = data(pairs_path, loaded, loss=loss, caption_dropout=0.0).micro_batch(0, 0)
    assert batch.mask is not None
    assert batch.mask.mean(dim=1).tolist() == [0.5] * 12
    assert batch.mask[0].tolist() == batch.mask[8].tolist() == [1.0] * (TOKENS // 2) + [0.0] * (TOKENS // 2)
    assert batch.mask[4].tolist() == [0.5] * TOKENS


def test_about_the_configured_share_of_captions_is_dropped(pairs_path: Path, loaded: JanusModel) -> None:
    pairs = data(pairs_path, loaded, batch_size=100, accumulation=10, caption_dropout=0.1)
    assert 0.05 < pairs.dropped(0).mean() < 0.15
    assert pairs.dropped(0).tolist() != pairs.dropped(1).tolist()


@pytest.mark.parametrize(
    ("columns", "options", "field"),
    [
        ({"chosen_tokens": [1, 2, 3]}, {}, "chosen_tokens"),
        ({"chosen_tokens": [999] * TOKENS}, {}, "tokens"),
        ({"negative_prompt": None}, {}, "negative_prompt"),
        ({"chosen_mask": None}, {"loss": LossConfig(object_weight=1.0)}, "chosen_mask"),
    ],
)
def test_pairs_that_do_not_fit_are_an_error_that_names_the_column(
    tmp_path: Path, loaded: JanusModel, columns: dict[str, Any], options: dict[str, Any], field: str
) -> None:
    with pytest.raises(TrainingError, match=field):
        data(write_pairs(tmp_path / "p", **columns), loaded, **options)


def test_a_negative_prompt_is_not_needed_without_the_conditional_loss(tmp_path: Path, loaded: JanusModel) -> None:
    path = write_pairs(tmp_path / "p", negative_prompt=None)
    assert not data(path, loaded, loss=LossConfig(w_cond=0.0)).micro_batch(0, 0).has_negative


def test_no_pairs_are_an_error(tmp_path: Path, loaded: JanusModel) -> None:
    with pytest.raises(TrainingError, match="no pairs"):
        data(write_pairs(tmp_path / "p", count=0), loaded)


@pytest.mark.parametrize("cut", [0, 4, 100, -1, -8])
def test_a_cut_file_of_pairs_is_named(pairs_path: Path, tmp_path: Path, loaded: JanusModel, cut: int) -> None:
    whole = (pairs_path if pairs_path.is_file() else next(pairs_path.glob("*.parquet"))).read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[:cut])
    with pytest.raises(TrainingError, match=r"cut\.parquet: cannot be read as pairs.*Run again"):
        data(tmp_path / "cut.parquet", loaded)


def test_a_folder_of_files_is_read_in_the_order_of_their_names(tmp_path: Path, loaded: JanusModel) -> None:
    for name, color in (("part-1.parquet", "blue"), ("part-0.parquet", "red")):
        write_pairs(tmp_path / name, count=1, prompt=f"a {color} circle")
    pairs = data(tmp_path, loaded, batch_size=1, accumulation=1, loss=LossConfig(w_simpo=0.0, w_cond=0.0))
    red, _ = loaded.encode_prompts(["a red circle"])
    steps = [pairs.micro_batch(step, 0).input_ids[:1] for step in range(2)]
    assert steps[[pairs.indices(step)[0] for step in range(2)].index(0)].equal(red)
