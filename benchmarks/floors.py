"""The least time that a piece of work can take on a device, from its shapes and the device's two limits.

A decode step must read the language model's weights and the keys and values of all rows once, and must do the products
of both: the larger of the two counts. Reading and training are products alone: two operations per weight and token
forward, and as many backward (the base is frozen, so there is no gradient of its weights); recomputation is overhead,
and so is padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from benchmarks.device import Limits
from ospo_core.models.janus.model import JanusModel
from ospo_core.models.vqa import question_ids


@dataclass
class Floors:
    """The floors of one model, which has one position per image token, on a device with these limits."""

    model: JanusModel
    limits: Limits

    @cached_property
    def weights(self) -> tuple[int, int]:
        """Parameters of the language model's layers, and of what reads and writes image tokens around it."""
        janus = self.model.network.model
        embeddings = parameters(self.model.backbone.get_input_embeddings())
        around = parameters(janus.generation_head) + parameters(janus.generation_aligner)
        return parameters(self.model.backbone) - embeddings, around

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

    def decode_step(self, batch: int, prompts: Sequence[str], steps: int, halves: int) -> dict[str, float]:
        """Return the least time of a mean decode step, and what it consists of.

        Args:
            batch: images decoded together.
            prompts: theirs, or some of them.
            steps: made in all, over which the cache grows.
            halves: 2 with guidance, else 1.
        """
        model, (layers, around) = self.model, self.weights
        prefill = float(model.encode_prompts(prompts)[1].sum(dim=-1).double().mean())
        rows, positions = halves * batch, prefill + steps / 2
        weights = (layers + around) * model.dtype.itemsize
        cache = rows * positions * model.memory.cache
        read = (weights + cache) / self.limits.bandwidth
        products = self.forward_flops(rows, positions, around) / self.limits.matmul
        return {
            "prompt_positions": prefill,
            "weight_gb": weights / 1e9,
            "cache_gb_per_step": cache / 1e9,
            "floor_ms": 1000 * max(read, products),
            "floor_read_ms": 1000 * read,
            "floor_products_ms": 1000 * products,
            "floor_images_per_second": batch / (max(read, products) * model.geometry.tokens),
        }

    def sampling(self, prompts: Sequence[str], batch: int, guidance: float) -> float:
        """Return the least seconds to sample an image of each prompt, `batch` of them at a time."""
        length, halves = self.model.geometry.tokens, 1 if guidance == 1.0 else 2
        parts = [prompts[start : start + batch] for start in range(0, len(prompts), batch)]
        steps = sum(self.decode_step(len(part), part, length, halves)["floor_ms"] for part in parts)
        return steps / 1000 * length

    def answering(self, questions: Sequence[Sequence[str]]) -> float:
        """Return the least seconds to answer questions about one picture per list, each picture being read once."""
        model, pictures = self.model, len(questions)
        prefix, rows = question_ids(model, [question for some in questions for question in some])
        flops = self.forward_flops(pictures * len(prefix), len(prefix) / 2)
        flops += self.forward_flops(sum(map(len, rows)), len(prefix))
        flops += 2 * parameters(model.network.model.vision_model) * pictures * model.geometry.read_positions
        return flops / self.limits.matmul

    def scoring(self, prompts: Sequence[str]) -> float:
        """Return the least seconds of a forward pass over an image after each prompt."""
        image = self.model.geometry.tokens
        positions = int(self.model.encode_prompts(prompts)[1].sum()) + len(prompts) * image
        head = len(prompts) * image * 2 * self.weights[1]
        return (self.forward_flops(positions, positions / len(prompts) / 2) + head) / self.limits.matmul

    def training(self, prompts: Sequence[str], negatives: Sequence[str]) -> float:
        """Return the least seconds of an optimiser step on one pair per prompt: three sequences each."""
        return 2 * self.scoring([*prompts, *prompts, *negatives])

    def writing(self, shared: int, given: int, written: int, batch: int) -> float:
        """Return the least seconds to write text.

        Args:
            shared: positions at the start of all requests, read once.
            given: other positions of all requests.
            written: tokens of all answers.
            batch: answers written at a time.
        """
        layers, head = self.weights[0], parameters(self.model.network.lm_head)
        flops = self.forward_flops(shared + given, shared / 2) + self.forward_flops(written, shared, head)
        steps = written / batch
        read = steps * (layers + head) * self.model.dtype.itemsize + written * shared * self.model.memory.cache
        return max(flops / self.limits.matmul, read / self.limits.bandwidth)


def parameters(module: nn.Module) -> int:
    """Return the number of a module's parameters."""
    return sum(weights.numel() for weights in module.parameters())
