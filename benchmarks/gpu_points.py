"""What `benchmarks.gpu` measures: each function takes a model under measurement and returns figures.

Times are medians after a warm-up; those of sampling are one whole batch, after a few steps for warming up.

`benchmarks.floors` says what the floor is. Of training, its share is the model's utilisation of the device's products
(MFU).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.baselines.images import published_images
from benchmarks.device import (
    EnoughSteps,
    Limits,
    median,
    profiled_steps,
    reset_peak,
    times_of,
    watched_steps,
)
from benchmarks.floors import Floors
from benchmarks.random_janus import dense_prompts, questions_about
from benchmarks.workloads import RoundTrainer, random_pairs
from ospo_core.config.sections import LoraSettings, TrainingConfig
from ospo_core.models.janus.model import JanusModel
from ospo_core.models.logprobs import mean_logprob
from ospo_core.models.pictures import decode_tokens, encode_png
from ospo_core.models.sampling import sample_images
from ospo_core.models.vqa import answer_questions, question_ids
from ospo_core.training.memory import training_memory

GUIDANCE, QUESTIONS = 5.0, 5
REPEATS, WARM_STEPS = 3, 6


@dataclass
class Bench:
    """A model under measurement.

    Attributes:
        model: the model.
        limits: of its device.
        deadline: when all must be done, on the clock of `time.monotonic`.
        point_deadline: when the point that is measured must be.
    """

    model: JanusModel
    limits: Limits
    deadline: float
    point_deadline: float = 0.0

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    def out_of_time(self) -> bool:
        """Return whether the point must end."""
        return time.monotonic() > self.point_deadline

    def times(self, work: Callable[[], object]) -> list[float]:
        """Return the seconds of some repeats, after a warm-up."""
        reset_peak(self.device)
        return times_of(self.device, work, REPEATS, self.out_of_time)

    @cached_property
    def floors(self) -> Floors:
        """The least times of the model's work."""
        return Floors(self.model, self.limits)

    def tokens(self, count: int) -> NDArray[np.uint16]:
        """Return random images `uint16 [count, T]`."""
        geometry = self.model.geometry
        return np.random.default_rng(0).integers(0, geometry.codes, (count, geometry.tokens), dtype=np.uint16)


def sampling(bench: Bench, batch: int) -> dict[str, Any]:
    """Sample one batch of images with guidance; it is cut off where time is over."""
    model, prompts = bench.model, dense_prompts(batch)

    def warm(step: int) -> None:
        if step == WARM_STEPS:
            raise EnoughSteps

    def in_time(step: int) -> None:
        if bench.out_of_time():
            raise EnoughSteps

    def sample() -> None:
        sample_images(model, prompts, range(batch), GUIDANCE, 1.0, batch)

    with watched_steps(model, warm):
        sample()
    first = time.perf_counter()
    if bench.device.type == "cuda" and not bench.out_of_time():
        sample()  # captures the steps' graphs, once for all batches
    first = time.perf_counter() - first
    reset_peak(bench.device)
    finished = False
    began = time.perf_counter()
    with watched_steps(model, in_time) as steps:
        sample()
        finished = True
    seconds = time.perf_counter() - began
    wanted = model.geometry.tokens
    done = wanted if finished else len(steps.marks)
    per_step = steps.milliseconds()
    floor = bench.floors.decode_step(batch, prompts, done, 2)
    step_ms = 1000 * seconds / max(done, 1)
    used = model.batching.take_figures()[1]["batches"]["sizes"]["sampling"]
    edge = max(len(per_step) // 10, 1)
    return {
        "images_per_second": batch / seconds * done / wanted,
        "steps": done,
        "batch_used": used,
        "note": None if finished else f"stopped after {done} of {wanted} steps; later ones take longer",
        "seconds": seconds,
        "first_batch_seconds": first,
        "step_ms": step_ms,
        "step_ms_median": median(per_step),
        "step_ms_first_and_last_tenth": [median(per_step[:edge]), median(per_step[-edge:])],
        **floor,
        "share_of_floor": floor["floor_ms"] / step_ms,
    }


def published(bench: Bench, batch: int, steps: int) -> dict[str, Any]:
    """Make the first steps of the published loop, the shortest ones; as images per second they flatter it."""
    model, prompts = bench.model, dense_prompts(batch)
    short = replace(model.geometry, tokens=steps, rows=None, columns=None)
    with patch.object(model, "geometry", short):
        times = bench.times(lambda: published_images(model, prompts, GUIDANCE, batch))
    seconds = _median(times) / steps
    return {"images_per_second": batch / (seconds * model.geometry.tokens), "step_ms": 1000 * seconds, "steps": steps}


def profiled_step(bench: Bench, batch: int) -> dict[str, Any]:
    """Profile a decode step with guidance: launches, bytes, and the operators that take longest."""
    return decode_profile(bench.model, dense_prompts(batch))


def decode_profile(model: JanusModel, prompts: Sequence[str]) -> dict[str, Any]:
    """Profile a decode step of the round's sampler with guidance; see `profiled_steps`."""
    geometry, count = model.geometry, len(prompts)
    made = [geometry.tokens]

    def sample(steps: int) -> None:
        short = replace(geometry, tokens=steps, rows=None, columns=None)
        if made[-1] != steps:
            model.batching.kept.clear()  # it has memory for other images
        made.append(steps)
        with patch.object(model, "geometry", short):
            sample_images(model, prompts, range(count), GUIDANCE, 1.0, count)

    few, many = (min(steps, geometry.tokens * steps // 64) for steps in (32, 48))
    figures = profiled_steps(model.device, sample, few, many)
    model.batching.kept.clear()
    return figures


def decoding(bench: Bench, batch: int) -> dict[str, Any]:
    """Turn image tokens into pictures."""
    times = bench.times(lambda: decode_tokens(bench.model, bench.tokens(batch), batch))
    return {"images_per_second": batch / _median(times), "seconds": times}


def png(bench: Bench, batch: int) -> dict[str, Any]:
    """Encode pictures as PNG, in one thread of the host."""
    pictures = decode_tokens(bench.model, bench.tokens(batch), batch)
    times = bench.times(lambda: [encode_png(picture) for picture in pictures])
    size = sum(len(encode_png(picture)) for picture in pictures) / batch
    return {"images_per_second": batch / _median(times), "seconds": times, "bytes_per_image": size}


def answering(bench: Bench, pictures: int) -> dict[str, Any]:
    """Answer questions about pictures, all pictures in one group."""
    model, geometry = bench.model, bench.model.geometry
    shape = (pictures, geometry.height, geometry.width, 3)
    shown = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    asked = [questions_about(picture, QUESTIONS) for picture in range(pictures)]
    times = bench.times(lambda: answer_questions(model, shown, asked, pictures * QUESTIONS))
    prefix, rows = question_ids(model, [question for some in asked for question in some])
    after = sum(map(len, rows))
    return {
        "questions_per_second": pictures * QUESTIONS / _median(times),
        "seconds": times,
        "positions_per_picture": len(prefix),
        "positions_per_question": after / len(rows),
        "share_of_floor": bench.floors.answering(asked) / _median(times),
    }


def scoring(bench: Bench, batch: int) -> dict[str, Any]:
    """Compute mean log-probabilities of images."""
    prompts, tokens = dense_prompts(batch), bench.tokens(batch)
    times = bench.times(lambda: mean_logprob(bench.model, prompts, tokens, batch))
    return {
        "sequences_per_second": batch / _median(times),
        "seconds": times,
        "share_of_floor": bench.floors.scoring(prompts) / _median(times),
    }


def training(bench: Bench, batch: int, recompute: bool) -> dict[str, Any]:
    """Make optimiser steps of one micro-batch with the paper's loss (v2) and adapter, without dropped captions.

    Args:
        bench: the model.
        batch: pairs per forward pass, three sequences each.
        recompute: whether activations are recomputed.
    """
    model, pairs = bench.model, random_pairs(bench.tokens(2 * batch))
    config = TrainingConfig(lora=LoraSettings(rank=32, alpha=64), batch_size=batch, caption_dropout=0.0)
    trainer = RoundTrainer(model, pairs, config, recompute, at_once=batch)
    losses: list[float] = []
    try:
        times = bench.times(lambda: losses.append(trainer.step()))
    finally:
        model.network.gradient_checkpointing_disable()
        trainer.policy.adapted.unload()
        model.network.eval()
    floor = bench.floors.training(pairs.prompts, pairs.negatives)
    return {
        "pairs_per_second": batch / _median(times),
        "seconds": times,
        "losses": losses,
        "trained_parameters": sum(weights.numel() for weights in trainer.policy.parameters() if weights.requires_grad),
        "estimated_gb": training_memory(config, model, batch, recompute) / 1e9,
        "share_of_floor": floor / _median(times),
    }


def _median(times: list[float]) -> float:
    """Return the median of at least one time."""
    return median(times) or float("nan")
