"""What `benchmarks.gpu` measures: each function takes a model under measurement and returns figures.

Times are medians after a warm-up; those of sampling are one whole batch, after a few steps for warming up.

*Floor*: a decode step must read the language model's weights and the keys and values of all rows once, and must do the
products of both. The floor is the larger of these two, at the bandwidth of a large copy and the rate of a large matrix
product. Elsewhere it is the products alone: two operations per weight and token forward, and as many backward (the base
is frozen, so there is no gradient of its weights); recomputation counts as overhead.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import nn

from benchmarks.device import (
    EnoughSteps,
    Limits,
    StepProfile,
    median,
    reset_peak,
    synchronize,
    times_of,
    watched_steps,
)
from benchmarks.random_janus import dense_prompts, questions_about
from ospo_core.config.sections import LoraSettings, TrainingConfig
from ospo_core.models.janus.model import JanusModel
from ospo_core.models.logprobs import mean_logprob
from ospo_core.models.pictures import decode_tokens, encode_png
from ospo_core.models.sampling import sample_images
from ospo_core.models.vqa import answer_questions, question_ids
from ospo_core.training.checkpoint import CheckpointStore
from ospo_core.training.collapse import CollapseAlarm
from ospo_core.training.data import PairData
from ospo_core.training.job import Metrics
from ospo_core.training.loop import Trainer
from ospo_core.training.memory import training_memory
from ospo_core.training.policy import Policy, build_policy

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
    def weights(self) -> tuple[int, int]:
        """Parameters of the language model's layers, and of what reads and writes image tokens around it."""
        janus = self.model.network.model
        embeddings = _parameters(self.model.backbone.get_input_embeddings())
        around = _parameters(janus.generation_head) + _parameters(janus.generation_aligner)
        return _parameters(self.model.backbone) - embeddings, around

    def forward_flops(self, tokens: int, context: float, head: int = 0) -> float:
        """Return the operations of a forward pass over `tokens`, each attending to `context` positions on average.

        Args:
            tokens: of all rows.
            context: mean number of positions attended to.
            head: parameters that are applied to each token besides those of the language model.
        """
        config = self.model.backbone.config
        attention = 4 * config.hidden_size * config.num_hidden_layers * context
        return tokens * (2 * (self.weights[0] + head) + attention)

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
    floor = _decode_floor(bench, batch, prompts, done)
    step_ms = 1000 * seconds / max(done, 1)
    edge = max(len(per_step) // 10, 1)
    return {
        "images_per_second": batch / seconds * done / wanted,
        "steps": done,
        "note": None if finished else f"stopped after {done} of {wanted} steps; later ones take longer",
        "seconds": seconds,
        "step_ms": step_ms,
        "step_ms_median": median(per_step),
        "step_ms_first_and_last_tenth": [median(per_step[:edge]), median(per_step[-edge:])],
        **floor,
        "share_of_floor": floor["floor_ms"] / step_ms,
    }


def _decode_floor(bench: Bench, batch: int, prompts: Sequence[str], steps: int) -> dict[str, float]:
    """Return the least time of a mean decode step of `batch` images with guidance, and what it consists of."""
    model, (layers, around) = bench.model, bench.weights
    prefill = model.encode_prompts(prompts)[0].shape[1]
    rows, positions = 2 * batch, prefill + steps / 2
    weights = (layers + around) * model.dtype.itemsize
    cache = rows * positions * model.memory.cache
    read = (weights + cache) / bench.limits.bandwidth
    products = bench.forward_flops(rows, positions, around) / bench.limits.matmul
    return {
        "prompt_positions": prefill,
        "weight_gb": weights / 1e9,
        "cache_gb_per_step": cache / 1e9,
        "floor_ms": 1000 * max(read, products),
        "floor_read_ms": 1000 * read,
        "floor_products_ms": 1000 * products,
        "floor_images_per_second": batch / (max(read, products) * model.geometry.tokens),
    }


def profiled_step(bench: Bench, batch: int) -> dict[str, Any]:
    """Profile some decode steps: launches, and the operators that take longest."""
    length = bench.model.geometry.tokens
    profiler = StepProfile(bench.device, min(48, length // 2), min(4, length // 4))
    with watched_steps(bench.model, profiler):
        sample_images(bench.model, dense_prompts(batch), range(batch), GUIDANCE, 1.0, batch)
    return profiler.figures()


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
    flops = bench.forward_flops(pictures * len(prefix), len(prefix) / 2) + bench.forward_flops(after, len(prefix))
    flops += 2 * _parameters(model.network.model.vision_model) * pictures * geometry.read_positions
    return {
        "questions_per_second": pictures * QUESTIONS / _median(times),
        "seconds": times,
        "positions_per_picture": len(prefix),
        "positions_per_question": after / len(rows),
        "share_of_floor": flops / bench.limits.matmul / _median(times),
    }


def scoring(bench: Bench, batch: int) -> dict[str, Any]:
    """Compute mean log-probabilities of images."""
    prompts, tokens = dense_prompts(batch), bench.tokens(batch)
    times = bench.times(lambda: mean_logprob(bench.model, prompts, tokens, batch))
    flops = _sequence_flops(bench, prompts)
    return {
        "sequences_per_second": batch / _median(times),
        "seconds": times,
        "share_of_floor": flops / bench.limits.matmul / _median(times),
    }


def _sequence_flops(bench: Bench, prompts: Sequence[str]) -> float:
    """Return the operations of a forward pass over an image after each prompt, padding not counted."""
    image = bench.model.geometry.tokens
    positions = int(bench.model.encode_prompts(prompts)[1].sum()) + len(prompts) * image
    head = len(prompts) * image * 2 * bench.weights[1]
    return bench.forward_flops(positions, positions / len(prompts) / 2) + head


class _NoCheckpoints(CheckpointStore):
    """Saves nothing: how long a file takes is not measured here."""

    def save(
        self, step: int, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer, alarm: CollapseAlarm
    ) -> Path:
        """Do nothing."""
        return Path()


@dataclass
class _StepClock:
    """The time from optimiser step to optimiser step; the first one is not counted."""

    device: torch.device
    ends: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def __call__(self, figures: Metrics) -> None:
        """Note the end of a step."""
        synchronize(self.device)
        self.ends.append(time.perf_counter())
        self.losses.append(float(figures["loss"]))

    @property
    def times(self) -> list[float]:
        """Seconds of each step but the first."""
        return [after - before for before, after in pairwise(self.ends)]


def training(bench: Bench, batch: int, recompute: bool) -> dict[str, Any]:
    """Make optimiser steps of one micro-batch with the paper's loss (v2) and adapter, without dropped captions.

    Args:
        bench: the model.
        batch: pairs per forward pass, three sequences each.
        recompute: whether activations are recomputed.
    """
    model, clock = bench.model, _StepClock(bench.device)
    config = TrainingConfig(
        lora=LoraSettings(rank=32, alpha=64),
        batch_size=batch,
        accumulation=1,
        steps=1 + REPEATS,
        checkpoint_every=2 + REPEATS,
        caption_dropout=0.0,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.parquet"
        prompts, negatives = write_pairs(path, bench.tokens(2 * batch * (1 + REPEATS)))
        data = PairData(path, model, config, seed=0)
    policy = build_policy(model, config, 0, recompute)
    try:
        reset_peak(bench.device)
        trained = sum(weights.numel() for weights in policy.parameters() if weights.requires_grad)
        _train(bench, policy, data, config, clock)
    finally:
        model.network.gradient_checkpointing_disable()
        policy.adapted.unload()
        model.network.eval()
    if not clock.times:
        raise TimeoutError(f"{len(clock.ends)} steps in the time of a point")
    flops = 2 * _sequence_flops(bench, [*prompts[:batch], *prompts[:batch], *negatives[:batch]])
    return {
        "pairs_per_second": batch / _median(clock.times),
        "seconds": clock.times,
        "losses": clock.losses,
        "trained_parameters": trained,
        "estimated_gb": training_memory(config, model, recompute) / 1e9,
        "share_of_floor": flops / bench.limits.matmul / _median(clock.times),
    }


def _train(bench: Bench, policy: Policy, data: PairData, config: TrainingConfig, clock: _StepClock) -> None:
    """Run the round's trainer until its steps are made or time is over."""
    accelerator = Accelerator(cpu=bench.device.type == "cpu", mixed_precision="no")
    store = _NoCheckpoints(Path(), "benchmark")
    Trainer(policy, data, config, 0, accelerator, store, bench.device).run(clock, bench.out_of_time)


def write_pairs(path: Path, tokens: NDArray[np.uint16]) -> tuple[list[str], list[str]]:
    """Write the columns of pairs that training reads; return prompts and negative prompts.

    Args:
        path: the Parquet file.
        tokens: `[2 * pairs, T]`, the chosen images, then the rejected ones.
    """
    images, count = tokens.tolist(), len(tokens) // 2
    prompts = dense_prompts(count + 1)
    columns = {
        "prompt": prompts[:-1],
        "negative_prompt": prompts[1:],
        "chosen_tokens": pa.array(images[:count], pa.list_(pa.uint16())),
        "rejected_tokens": pa.array(images[count:], pa.list_(pa.uint16())),
    }
    pq.write_table(pa.table(columns), path)
    return prompts[:-1], prompts[1:]


def _parameters(module: nn.Module) -> int:
    """Return the number of a module's parameters."""
    return sum(weights.numel() for weights in module.parameters())


def _median(times: list[float]) -> float:
    """Return the median of at least one time."""
    return median(times) or float("nan")
