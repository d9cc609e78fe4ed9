"""The training loop: steps of accumulated micro-batches, metrics, checkpoints, the collapse alarm, a clean stop.

One process or several run the same code: `accelerate.Accelerator` shares gradients and decisions (data parallel: every
process holds the model, gradients are averaged), and does nothing where there is one process.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from accelerate import Accelerator

from ospo_core.config.sections import TrainingConfig
from ospo_core.errors import TrainingError
from ospo_core.training.checkpoint import CheckpointStore
from ospo_core.training.collapse import CollapseAlarm, CollapseError
from ospo_core.training.data import MicroBatch, PairData
from ospo_core.training.job import Metrics
from ospo_core.training.losses import LossParts
from ospo_core.training.policy import Policy, batch_loss, seeded, trainable

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """How far a call of `Trainer.run` got: optimiser steps in all, and the metrics of its own last step, if any.

    A run that is not finished was asked to stop, and has a checkpoint.
    """

    step: int
    finished: bool
    metrics: Metrics


class Trainer:
    """Trains the adapter of a policy, which is on `device`, on pairs; `seed` is that of the LoRA dropout.

    Raises:
        TrainingError: the processes cannot share the accumulation evenly.
    """

    def __init__(
        self,
        policy: Policy,
        data: PairData,
        config: TrainingConfig,
        seed: int,
        accelerator: Accelerator,
        store: CheckpointStore,
        device: torch.device,
    ) -> None:
        if config.accumulation % accelerator.num_processes:
            raise TrainingError(
                f"{accelerator.num_processes} processes cannot share the forward passes of a step evenly",
                field="training.accumulation",
                value=config.accumulation,
                remedy="Use a multiple of the number of processes",
            )
        self._data, self._config, self._seed, self._accelerator = data, config, seed, accelerator
        self._store, self._device = store, device
        self._parameters = trainable(policy)
        self._policy = accelerator.prepare(policy)
        self._optimizer = torch.optim.AdamW(
            self._parameters.values(),
            lr=config.learning_rate,
            betas=config.adam_betas,
            weight_decay=0.0,
            fused=device.type == "cuda" or None,
        )
        self._alarm = CollapseAlarm(drop=config.collapse_drop, patience=config.collapse_patience)
        self.step = 0

    def resume(self) -> int:
        """Continue from the newest checkpoint; return its step, 0 if there is none."""
        checkpoint = self._store.load_latest()
        if checkpoint is None:
            return 0
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(checkpoint.adapter[name])
        self._optimizer.load_state_dict(checkpoint.optimizer)
        self._alarm, self.step = checkpoint.alarm, checkpoint.step
        return self.step

    def run(
        self,
        on_step: Callable[[Metrics], None],
        should_stop: Callable[[], bool] = lambda: False,
        beat: Callable[[], None] = lambda: None,
    ) -> Outcome:
        """Train until all steps are done or a stop is requested; either way the last complete step is saved.

        Args:
            on_step: receives the metrics of every step.
            should_stop: asked between micro-batches; one process abandons a step it has begun, several finish it.
            beat: called after every micro-batch, as a heartbeat.

        Raises:
            CollapseError: the chosen images became improbable and stayed so.
            TrainingError: the gradient is not finite, or a checkpoint cannot be written.
        """
        saved, metrics = self.step, Metrics()
        abandon = should_stop if self._accelerator.num_processes == 1 else lambda: False
        while self.step < self._config.steps and not self._anywhere(should_stop()):
            made = self._train_step(abandon, beat)
            if made is None:
                break
            metrics = made
            on_step(metrics)
            if self._alarm.collapsed:
                raise CollapseError(
                    f"the chosen images' log-probability fell by more than {self._alarm.drop} nats per token for "
                    f"{self._alarm.patience} steps",
                    field=f"training, step {self.step}",
                    remedy="Lower training.learning_rate or raise training.loss.w_sft",
                )
            if self.step % self._config.checkpoint_every == 0:
                saved = self._save()
        if saved < self.step:
            self._save()
        return Outcome(self.step, self.step >= self._config.steps, metrics)

    def _train_step(self, should_stop: Callable[[], bool], beat: Callable[[], None]) -> Metrics | None:
        """Make one optimiser step; None if a stop was requested before it was complete."""
        began = time.perf_counter()
        self._optimizer.zero_grad(set_to_none=True)
        processes = self._accelerator.num_processes
        parts = list(range(self._accelerator.process_index, self._config.accumulation, processes))
        means: list[torch.Tensor] = []
        figures: dict[str, torch.Tensor] = {}
        tokens = 0
        for part in parts:
            if should_stop():
                return None
            batches = self._data.passes(self.step, part)
            for place, batch in enumerate(batches):
                share = batch.pairs / (self._config.batch_size * len(parts))
                last = part == parts[-1] and place == len(batches) - 1
                # at the last pass, gradients are averaged over the processes
                with nullcontext() if last else self._accelerator.no_sync(self._policy):
                    figures = self._pass(batch.to(self._device), share, (part, place))
                tokens += batch.tokens.numel()
                means.append(torch.stack([value.double() * share for value in figures.values()]))
                beat()
        averaged = self._accelerator.reduce(torch.stack(means).sum(dim=0), reduction="mean").tolist()
        gradient = self._apply()
        means_of_step = dict(zip(figures, averaged, strict=True))
        below = self._alarm.observe(means_of_step["chosen_logprob"])
        seconds = time.perf_counter() - began
        return {
            "step": self.step,
            **means_of_step,
            "grad_norm": gradient,
            "learning_rate": learning_rate(self.step - 1, self._config),
            "collapse_alarm": float(below),
            "seconds": seconds,
            "tokens_per_second": tokens * processes / seconds,
        }

    def _pass(self, batch: MicroBatch, share: float, place: tuple[int, int]) -> dict[str, torch.Tensor]:
        """Add a pass's gradient, which has this share in the step's, and return the means of its figures."""
        with seeded(self._device, "lora dropout", self._seed, self.step, *place):
            loss, logprobs = batch_loss(self._policy, batch, self._config.loss)
        self._accelerator.backward(loss.total * share)
        return {**_loss_figures(loss), **logprobs}

    def _apply(self) -> float:
        """Clip the gradient, make the step and return the gradient's norm before clipping."""
        norm = self._accelerator.clip_grad_norm_(list(self._parameters.values()), self._config.max_grad_norm)
        if not torch.isfinite(norm):
            raise TrainingError(
                "the gradient is not finite",
                field=f"training, step {self.step + 1}",
                value=float(norm),
                remedy="Lower training.learning_rate, or train in float32",
            )
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self._config)
        self._optimizer.step()
        self.step += 1
        return float(norm)

    def _save(self) -> int:
        """Let the main process write a checkpoint, and return its step."""
        if self._accelerator.is_main_process:
            self._store.save(self.step, self._parameters, self._optimizer, self._alarm)
        self._accelerator.wait_for_everyone()
        return self.step

    def _anywhere(self, flag: bool) -> bool:
        """Return whether `flag` is set in any process."""
        if flag:
            self._accelerator.set_trigger()
        return self._accelerator.check_trigger()


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Return the learning rate of `step`, counted from 0 (paper v2: constant; v3: warm-up, then cosine).

    It rises linearly over `warmup_fraction` of the steps, then stays or falls along a half cosine, whose last step
    has `min_learning_rate`.
    """
    peak = config.learning_rate
    warmup = round(config.warmup_fraction * config.steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    if config.schedule == "constant":
        return peak
    progress = (step - warmup) / max(1, config.steps - 1 - warmup)
    floor = min(config.min_learning_rate, peak)
    return floor + (peak - floor) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def _loss_figures(loss: LossParts) -> dict[str, torch.Tensor]:
    """Return the means of the loss's parts, and how often the preferred side has the larger reward."""
    parts = {name: value for name, value in vars(loss).items() if value is not None and name != "total"}
    accuracies = {
        name.replace("margin", "accuracy"): (value > 0).double() for name, value in parts.items() if "margin" in name
    }
    return {"loss": loss.total.detach(), **{name: value.mean() for name, value in {**parts, **accuracies}.items()}}
