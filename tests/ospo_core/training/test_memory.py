"""Memory of training: what is recomputed, and what is refused (the figures are checked in `benchmarks/test_gpu.py`)."""

from __future__ import annotations

import pytest
import torch

from ospo_core.config.sections import LossConfig
from ospo_core.errors import TrainingError
from ospo_core.models.janus.model import JanusModel
from ospo_core.training.memory import device_memory, plan_passes, training_memory
from tests.ospo_core.training.jobs import config

MUCH = 10**15


@pytest.fixture
def on_gpu(loaded: JanusModel, monkeypatch: pytest.MonkeyPatch) -> JanusModel:
    """Return the model as if it lay on a GPU."""
    monkeypatch.setattr(loaded, "device", torch.device("cuda"))
    return loaded


def test_a_micro_batch_of_any_size_takes_the_memory_of_one_pass(loaded: JanusModel) -> None:
    assert plan_passes(config(batch_size=2), loaded, MUCH).pairs == 2
    plans = {plan_passes(config(batch_size=size), loaded, MUCH) for size in (64, 4096)}
    assert [plan.pairs for plan in plans] == [33]
    alone = config(batch_size=64, loss=LossConfig(w_cond=0.0, w_simpo=0.0))
    assert plan_passes(alone, loaded, MUCH).pairs > 33


def test_every_sequence_takes_memory_and_recomputation_saves_it(loaded: JanusModel) -> None:
    options = config(batch_size=64)
    kept, recomputed = (training_memory(options, loaded, 64, recompute) for recompute in (False, True))
    assert loaded.memory.weights < recomputed < kept
    assert training_memory(options, loaded, 32, recompute=False) < kept
    assert training_memory(config(loss=LossConfig(w_cond=0.0)), loaded, 64, recompute=False) < kept
    assert training_memory(config(caption_dropout=0.5), loaded, 64, recompute=False) > kept


def test_activations_are_recomputed_where_they_would_fill_the_device(loaded: JanusModel) -> None:
    options = config(batch_size=64)
    needed = training_memory(options, loaded, 16, recompute=False)
    assert plan_passes(options, loaded, 2 * needed).recompute is False
    assert plan_passes(options, loaded, needed).recompute is True
    assert plan_passes(config(gradient_checkpointing=True), loaded, MUCH).recompute is True
    never = plan_passes(config(batch_size=64, gradient_checkpointing=False), loaded, needed)
    assert never.recompute is False and 1 <= never.pairs < 33


def test_a_gpu_computes_as_many_pairs_at_once_as_fit(on_gpu: JanusModel) -> None:
    options = config(batch_size=256)
    most = plan_passes(options, on_gpu, MUCH)
    assert most.pairs == 66 and not most.recompute
    fewer = plan_passes(options, on_gpu, most.memory)
    assert 16 <= fewer.pairs < 66 and not fewer.recompute
    small = plan_passes(options, on_gpu, training_memory(options, on_gpu, 16, recompute=False))
    assert small.recompute and small.pairs > 16
    assert small.memory == training_memory(options, on_gpu, small.pairs, recompute=True)


def test_what_cannot_fit_is_refused_with_a_remedy(loaded: JanusModel) -> None:
    one = training_memory(config(), loaded, 1, recompute=True)
    assert plan_passes(config(), loaded, one).pairs == 1
    with pytest.raises(TrainingError, match=r"one pair at a time needs about .* a device with more memory"):
        plan_passes(config(), loaded, one - 1)
    with pytest.raises(TrainingError, match="gradient_checkpointing=auto"):
        plan_passes(config(gradient_checkpointing=False), loaded, one)


def test_the_memory_of_this_machine_is_known() -> None:
    assert device_memory(torch.device("cpu")) > 10**9
