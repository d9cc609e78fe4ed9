"""The training loop: resuming, stopping, alarms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from accelerate import Accelerator

from ospo_core.config.sections import LossConfig
from ospo_core.errors import TrainingError
from ospo_core.training.checkpoint import CheckpointStore
from ospo_core.training.collapse import CollapseError
from ospo_core.training.data import PairData
from ospo_core.training.job import Metrics
from ospo_core.training.loop import Trainer
from ospo_core.training.policy import Policy, build_policy, trainable
from tests.ospo_core.training.jobs import config
from tests.support.tiny_janus import load_tiny_janus

Make = Callable[..., tuple[Trainer, Policy]]


@pytest.fixture
def make(model_folder: Path, pairs_path: Path, tmp_path: Path) -> Make:
    """Return a maker of trainers on fresh models, all with the same folder of checkpoints unless named otherwise."""

    def make_trainer(folder: str = "checkpoints", **options: Any) -> tuple[Trainer, Policy]:
        loaded, chosen = load_tiny_janus(model_folder), config(**options)
        policy = build_policy(loaded, chosen, seed=3)
        data = PairData(pairs_path, loaded, chosen, seed=3)
        store = CheckpointStore(tmp_path / folder, "job")
        return Trainer(policy, data, chosen, 3, Accelerator(cpu=True), store, loaded.device), policy

    return make_trainer


def ignore(figures: Metrics) -> None:
    """Take no interest in the metrics."""


def stop_after(calls: int) -> Callable[[], bool]:
    """Return a question that is answered with yes after so many times."""
    asked = iter(range(calls))
    return lambda: next(asked, None) is None


def test_a_stopped_and_resumed_run_ends_bit_for_bit_as_an_undisturbed_one(make: Make) -> None:
    through, through_policy = make("undisturbed", steps=5, caption_dropout=0.5)
    steps: list[Metrics] = []
    assert through.run(steps.append).finished

    first, _ = make(steps=5, caption_dropout=0.5)
    outcome = first.run(ignore, should_stop=stop_after(8))
    assert (outcome.finished, outcome.step) == (False, 2)  # step 3 had begun and was given up

    second, policy = make(steps=5, caption_dropout=0.5)
    assert second.resume() == 2
    resumed: list[Metrics] = []
    assert second.run(resumed.append).finished
    for name, parameter in trainable(policy).items():
        assert parameter.equal(trainable(through_policy)[name]), name
    timing = {"seconds", "tokens_per_second"}
    for ours, theirs in zip(resumed, steps[2:], strict=True):
        assert {k: v for k, v in ours.items() if k not in timing} == {
            k: v for k, v in theirs.items() if k not in timing
        }


def test_training_lowers_the_loss_and_raises_the_chosen_images(make: Make) -> None:
    trainer, _ = make(steps=12, batch_size=12, accumulation=1, caption_dropout=0.0)
    steps: list[Metrics] = []
    trainer.run(steps.append)
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert steps[-1]["chosen_logprob"] > steps[0]["chosen_logprob"]
    assert steps[-1]["image_margin"] > steps[0]["image_margin"]
    assert [row["step"] for row in steps] == list(range(1, 13))


def test_every_step_reports_the_same_figures(make: Make) -> None:
    trainer, _ = make(steps=1)
    steps: list[Metrics] = []
    trainer.run(steps.append)
    assert set(steps[0]) == {
        "step",
        "loss",
        "simpo",
        "cond",
        "sft",
        "image_margin",
        "text_margin",
        "image_accuracy",
        "text_accuracy",
        "chosen_logprob",
        "rejected_logprob",
        "conditional_logprob",
        "grad_norm",
        "learning_rate",
        "collapse_alarm",
        "seconds",
        "tokens_per_second",
    }


def test_sft_alone_reports_no_preferences(make: Make) -> None:
    trainer, _ = make(steps=1, loss=LossConfig(w_simpo=0.0, w_cond=0.0))
    steps: list[Metrics] = []
    trainer.run(steps.append)
    assert not {"simpo", "cond", "image_margin", "rejected_logprob", "conditional_logprob"} & set(steps[0])


def test_checkpoints_come_at_their_interval_and_at_the_end(make: Make, tmp_path: Path) -> None:
    trainer, _ = make(steps=5, checkpoint_every=2, batch_size=1, accumulation=1)
    trainer.run(ignore)
    assert sorted(folder.name for folder in (tmp_path / "checkpoints").iterdir()) == ["step-000004", "step-000005"]


def test_a_finished_run_makes_no_further_step(make: Make) -> None:
    make(steps=2)[0].run(ignore)
    again, _ = make(steps=2)
    assert again.resume() == 2
    outcome = again.run(ignore)
    assert (outcome.finished, outcome.step, outcome.metrics) == (True, 2, {})


def test_a_stop_before_the_first_step_saves_nothing(make: Make, tmp_path: Path) -> None:
    outcome = make()[0].run(ignore, should_stop=lambda: True)
    assert (outcome.finished, outcome.step) == (False, 0)
    assert not (tmp_path / "checkpoints").exists()


def test_a_collapsed_model_stops_the_run(make: Make) -> None:
    unbound = LossConfig(w_sft=0.0)
    trainer, _ = make(steps=20, loss=unbound, learning_rate=0.3, collapse_drop=0.1, collapse_patience=2)
    steps: list[Metrics] = []
    with pytest.raises(CollapseError, match="log-probability fell"):
        trainer.run(steps.append)
    assert [row["collapse_alarm"] for row in steps[-2:]] == [1.0, 1.0]
    assert len(steps) < 20


def test_a_gradient_that_is_not_finite_stops_the_run_before_the_step_is_made(make: Make) -> None:
    trainer, policy = make()
    next(iter(trainable(policy).values())).data.fill_(torch.inf)
    with pytest.raises(TrainingError, match=r"step 1: the gradient is not finite"):
        trainer.run(ignore)
    assert trainer.step == 0


def test_a_heartbeat_comes_after_every_forward_pass(make: Make) -> None:
    beats: list[int] = []
    make(steps=2, accumulation=3)[0].run(ignore, beat=lambda: beats.append(1))
    assert len(beats) == 6


def test_an_accumulation_that_the_processes_cannot_share_is_an_error(
    model_folder: Path, pairs_path: Path, tmp_path: Path
) -> None:
    two = cast(Accelerator, SimpleNamespace(num_processes=2))
    loaded, chosen = load_tiny_janus(model_folder), config(accumulation=3)
    policy, data = build_policy(loaded, chosen, seed=3), PairData(pairs_path, loaded, chosen, seed=3)
    with pytest.raises(TrainingError, match=r"training\.accumulation"):
        Trainer(policy, data, chosen, 3, two, CheckpointStore(tmp_path, "job"), loaded.device)
