"""Memory of training: what is recomputed, and what is refused (the figures are checked in `benchmarks/test_gpu.py`)."""

from __future__ import annotations

import pytest
import torch

from ospo_core.config.sections import LossConfig
from ospo_core.errors import TrainingError
from ospo_core.models.janus.model import JanusModel
from ospo_core.training import memory
from ospo_core.training.memory import (
    check_training_memory,
    device_memory,
    pairs_at_once,
    recomputes,
    training_memory,
)
from tests.ospo_core.training.jobs import config

MUCH = 10**15


def test_a_micro_batch_of_any_size_takes_the_memory_of_one_pass(loaded: JanusModel) -> None:
    assert pairs_at_once(config(batch_size=2), 16) == 2
    assert pairs_at_once(config(batch_size=64), 16) == 16 and pairs_at_once(config(batch_size=64), 576) == 2
    assert pairs_at_once(config(batch_size=64), 10_000) == 1
    assert pairs_at_once(config(batch_size=64, loss=LossConfig(w_cond=0.0, w_simpo=0.0)), 16) > 16
    needed = {training_memory(config(batch_size=size), loaded, recompute=False) for size in (16, 64, 4096)}
    assert len(needed) == 1


def test_every_sequence_takes_memory_and_recomputation_saves_it(
    loaded: JanusModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "POSITIONS_AT_ONCE", MUCH)
    options = config(batch_size=64)
    kept, recomputed = (training_memory(options, loaded, recompute) for recompute in (False, True))
    assert loaded.memory.weights < recomputed < kept
    for fewer in (config(batch_size=32), config(batch_size=64, loss=LossConfig(w_cond=0.0))):
        assert training_memory(fewer, loaded, recompute=False) < kept
    assert training_memory(config(batch_size=64, caption_dropout=0.5), loaded, recompute=False) > kept


def test_auto_recomputes_where_training_would_fill_the_device(loaded: JanusModel) -> None:
    needed = training_memory(config(), loaded, recompute=False)
    assert recomputes(config(), loaded, needed)
    assert not recomputes(config(), loaded, 2 * needed)
    assert recomputes(config(gradient_checkpointing=True), loaded, MUCH)
    assert not recomputes(config(gradient_checkpointing=False), loaded, 1)


def test_what_cannot_fit_is_refused_with_a_remedy(loaded: JanusModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "POSITIONS_AT_ONCE", MUCH)
    large, off = config(batch_size=4096), config(batch_size=4096, gradient_checkpointing=False)
    needed = training_memory(large, loaded, recompute=True)
    check_training_memory(large, loaded, needed)
    with pytest.raises(TrainingError, match=r"batch_size: training needs about .* \(got 4096\).*accumulation"):
        check_training_memory(large, loaded, needed - 1)
    with pytest.raises(TrainingError, match="gradient_checkpointing=auto"):
        check_training_memory(off, loaded, needed)


def test_a_smaller_batch_is_advised_only_where_it_helps(loaded: JanusModel, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainingError, match=r"training\.batch_size below 16 "):
        check_training_memory(config(batch_size=64), loaded, 1)
    monkeypatch.setattr(memory, "POSITIONS_AT_ONCE", 1)
    with pytest.raises(TrainingError, match="a device with more memory"):
        check_training_memory(config(batch_size=64), loaded, 1)


def test_the_memory_of_this_machine_is_known() -> None:
    assert device_memory(torch.device("cpu")) > 10**9
