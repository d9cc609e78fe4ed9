"""What is measured on a CPU: the shipped model with prompts of its world, random ones of the middle size, a trainer."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from peft import PeftModel
from torch import nn

from benchmarks.baselines.training import Pairs
from benchmarks.random_janus import PROMPTS, SIZES, dense_prompts, random_janus
from ospo_core.config.sections import EvaluationConfig, ModelConfig, TrainingConfig
from ospo_core.engines.base import Request
from ospo_core.evaluation.prompts import EvalPrompt, load_evaluation_prompts
from ospo_core.models.janus.model import JanusModel
from ospo_core.models.loading import load_model
from ospo_core.models.locate import resolve_model
from ospo_core.models.tokenizer import export_tokenizer
from ospo_core.prompts.families import family
from ospo_core.training.checkpoint import CheckpointStore
from ospo_core.training.collapse import CollapseAlarm
from ospo_core.training.data import PairData
from ospo_core.training.job import Metrics
from ospo_core.training.loop import Trainer
from ospo_core.training.memory import device_memory, plan_passes
from ospo_core.training.policy import build_policy, trainable

_MANY_STEPS = 10_000


def embedded_model(dtype: torch.dtype = torch.float32) -> JanusModel:
    """Return the shipped model, on the CPU."""
    name = str(dtype).removeprefix("torch.")
    model = load_model(resolve_model("embedded:shapes"), ModelConfig(device="cpu", dtype=name))
    assert isinstance(model, JanusModel)
    return model


def world(count: int) -> list[EvalPrompt]:
    """Return held-out prompts of the embedded world with their questions, over again where there are too few."""
    known = load_evaluation_prompts(EvaluationConfig(limit=count))
    return list(islice(cycle(known), count))


def requests_of(prompts: Sequence[str], max_tokens: int, greedy: bool) -> list[Request]:
    """Return the requests to decompose prompts into questions, in the language of the embedded model."""
    shapes = family("shapes")
    temperature = 0.0 if greedy else 1.0
    return [
        Request(shapes.chat_text(shapes.decompose(prompt)), seed, temperature, max_tokens)
        for seed, prompt in enumerate(prompts)
    ]


def requests_after_preamble(count: int, words: int, max_tokens: int, greedy: bool) -> list[Request]:
    """Return requests that share a preamble of about `words` words, as few-shot examples are, before a prompt each."""
    preamble = " ".join(islice(cycle(" ".join(PROMPTS).split()), words))
    temperature = 0.0 if greedy else 1.0
    prompts = islice(cycle(PROMPTS), count)
    return [
        Request(f"{preamble}\n{seed}: {prompt}\n", seed, temperature, max_tokens) for seed, prompt in enumerate(prompts)
    ]


def text_folder(model: JanusModel, folder: Path) -> Path:
    """Write the language model of a network made in memory where engines can load it."""
    JanusModel.text_backbone(model.network, model.tokenizer).save_pretrained(folder)
    export_tokenizer(model.tokenizer, folder)
    return folder


def mid_model(dtype: torch.dtype = torch.float32) -> JanusModel:
    """Return a model with random weights and Janus-Pro's images, but hidden size 512, on the CPU."""
    return random_janus(SIZES["mid"], torch.device("cpu"), dtype)


class NoCheckpoints(CheckpointStore):
    """Saves nothing: how long a file takes is not measured here."""

    def save(
        self, step: int, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer, alarm: CollapseAlarm
    ) -> Path:
        """Do nothing."""
        return Path()


class RoundTrainer:
    """The round's trainer on one batch of pairs, a step at a time; the network of `model` is changed in place.

    Args:
        model: the model.
        pairs: all are used in each step.
        config: loss, adapter and optimiser; its batch size is the number of pairs.
        recompute: whether activations are recomputed.
        at_once: pairs per forward pass; None is what the round plans.
    """

    def __init__(
        self, model: JanusModel, pairs: Pairs, config: TrainingConfig, recompute: bool, at_once: int | None = None
    ) -> None:
        sizes = {"batch_size": len(pairs), "accumulation": 1, "steps": _MANY_STEPS, "checkpoint_every": _MANY_STEPS}
        config = config.model_copy(update=sizes)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "pairs.parquet"
            pq.write_table(pairs_table(pairs), path)
            at_once = at_once or plan_passes(config, model, device_memory(model.device)).pairs
            data = PairData(path, model, config, seed=0, at_once=at_once)
        self.policy = build_policy(model, config, 0, recompute)
        accelerator = Accelerator(cpu=model.device.type == "cpu", mixed_precision="no")
        self._trainer = Trainer(self.policy, data, config, 0, accelerator, NoCheckpoints(Path(), "bench"), model.device)

    def give_adapter_to(self, other: PeftModel) -> None:
        """Copy the adapter's weights into the same adapter of another model."""
        mine = trainable(self.policy).values()
        theirs = [weights for weights in other.parameters() if weights.requires_grad]
        with torch.no_grad():
            for source, target in zip(mine, theirs, strict=True):
                target.copy_(source)

    def step(self) -> float:
        """Make one optimiser step; return its loss."""
        made: list[Metrics] = []
        self._trainer.run(made.append, lambda: bool(made))
        return float(made[0]["loss"])


def random_pairs(tokens: NDArray[np.uint16]) -> Pairs:
    """Return pairs with dense prompts; `tokens` `[2 * pairs, T]` are the chosen images, then the rejected ones."""
    count = len(tokens) // 2
    prompts = dense_prompts(count + 1)
    return Pairs(prompts[:-1], prompts[1:], tokens[:count], tokens[count : 2 * count])


def pairs_table(pairs: Pairs) -> pa.Table:
    """Return the columns of pairs that training reads."""
    return pa.table(
        {
            "prompt": list(pairs.prompts),
            "negative_prompt": list(pairs.negatives),
            "chosen_tokens": pa.array(pairs.chosen.tolist(), pa.list_(pa.uint16())),
            "rejected_tokens": pa.array(pairs.rejected.tolist(), pa.list_(pa.uint16())),
        }
    )
