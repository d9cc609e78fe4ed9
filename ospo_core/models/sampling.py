"""Sample image tokens, with classifier-free guidance and noise that belongs to the row.

Every row has a generator of its own, seeded by its own seed, and draws `torch.rand(codes)` per step: the noise of a row
does not depend on its batch (docs/method.md, trap 3). The token is the argmax of `logits / temperature + gumbel`, which
is a draw from the softmax. The batch still changes the rounding of matrix products: in float32 that can change a token
only where two candidates tie to the last bits, in bfloat16 it often does (docs/method.md, trap 13).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from transformers.cache_utils import Cache, DynamicLayer

from ospo_core.models.base import UnifiedModel
from ospo_core.models.sequences import by_length, positions, stack_left


@dataclass(frozen=True)
class SampledImages:
    """Sampled images.

    Attributes:
        tokens: `uint16 [N, T]`.
        mean_logprob: `float64 [N]`: `l(y|x)`, mean log-probability of the tokens given the prompt at temperature 1 and
            without guidance, nats.
    """

    tokens: NDArray[np.uint16]
    mean_logprob: NDArray[np.float64]


class RowNoise:
    """Gumbel noise for a batch, each row from its own generator.

    Args:
        seeds: one seed per row.
        codes: values that a row draws per step.
    """

    def __init__(self, seeds: Sequence[int], codes: int) -> None:
        self._generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        self._uniform = torch.empty((len(self._generators), codes))

    def draw(self) -> torch.Tensor:
        """Return the next step's Gumbel noise, `float32 [B, codes]` on the CPU."""
        for row, generator in zip(self._uniform, self._generators, strict=True):
            torch.rand(row.shape, generator=generator, out=row)
        return self._uniform.log().neg_().log_().neg_()


class _ReservedLayer(DynamicLayer):
    """Keys and values of one layer in memory reserved for the whole image: nothing is copied when a token is added.

    The static layers of transformers would compute over the whole reserved length at every step.

    Args:
        keys: of the prefill, `[U, H, P, D]`.
        values: of the prefill, likewise.
        rows: which of the `U` rows each of the `R` sequences begins with.
        capacity: positions to reserve, prompt included.
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, rows: torch.Tensor, capacity: int) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self._reserved: list[torch.Tensor] = []
        for states in (keys, values):
            reserved = states.new_empty((len(rows), states.shape[1], capacity, states.shape[3]))
            torch.index_select(states, 0, rows, out=reserved[:, :, : states.shape[2]])
            self._reserved.append(reserved)
        self._length = keys.shape[2]
        self._show()

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append states `[R, H, P, D]`; return all of them as views."""
        start, self._length = self._length, self._length + key_states.shape[2]
        for reserved, states in zip(self._reserved, (key_states, value_states), strict=True):
            reserved[:, :, start : self._length] = states
        return self._show()

    def _show(self) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = (reserved[:, :, : self._length] for reserved in self._reserved)
        self.keys, self.values = keys, values
        return keys, values


class _Decoder:
    """The growing sequences of one batch: cache, mask and next positions of all halves (`R` rows).

    Rows with the same prompt, such as unconditional ones of one length, are read once.

    Attributes:
        state: `[R, D]`, the state from which the next token is predicted.
    """

    def __init__(self, model: UnifiedModel, ids: torch.Tensor, mask: torch.Tensor) -> None:
        self._model = model
        distinct, rows = torch.stack([ids, mask], dim=1).unique(dim=0, return_inverse=True)
        first_ids, first_mask = distinct.unbind(dim=1)
        output = model.backbone(
            inputs_embeds=model.embed_text(first_ids),
            attention_mask=first_mask,
            position_ids=positions(first_mask),
            use_cache=True,
        )
        self.state: torch.Tensor = output.last_hidden_state[:, -1][rows]
        self._next = mask.sum(dim=-1, keepdim=True)
        self._width = ids.shape[1]
        capacity = self._width + model.token_offsets(model.geometry.tokens)[-1]
        self._mask = functional.pad(mask, (0, capacity - self._width), value=1)
        self._cache = _reserve(output.past_key_values, rows, capacity)

    def step(self, tokens: torch.Tensor) -> None:
        """Append the last of the image tokens `[R, S]` drawn so far."""
        embeddings = self._model.embed_image(tokens, start=tokens.shape[1] - 1)
        width = embeddings.shape[1]
        if not width:
            return
        self._width += width
        output = self._model.backbone(
            inputs_embeds=embeddings,
            attention_mask=self._mask[:, : self._width],
            position_ids=self._next + torch.arange(width, device=self._next.device),
            past_key_values=self._cache,
            use_cache=True,
        )
        self.state = output.last_hidden_state[:, -1]
        self._next = self._next + width


def _reserve(cache: Cache, rows: torch.Tensor, capacity: int) -> Cache:
    """Return the cache of a prefill for `rows`, with memory for `capacity` positions where its layers allow that."""
    states = [(layer.keys, layer.values) for layer in cache.layers if type(layer) is DynamicLayer]
    layers: list[Any] = [
        _ReservedLayer(keys, values, rows, capacity)
        for keys, values in states
        if keys is not None and values is not None
    ]
    if len(layers) < len(cache.layers):  # sliding windows and states of other kinds
        cache.batch_select_indices(rows)
        return cache
    return Cache(layers=layers)


def guide(logits: torch.Tensor, guidance: float) -> torch.Tensor:
    """Combine the halves `[2B, K]`, conditional first, into `uncond + guidance (cond - uncond)`, `[B, K]`.

    Source: docs/method.md, section 2.3.
    """
    conditional, unconditional = logits.chunk(2)
    return unconditional + guidance * (conditional - unconditional)


@torch.inference_mode()
def sample_images(
    model: UnifiedModel,
    prompts: Sequence[str],
    seeds: Sequence[int],
    guidance: float,
    temperature: float,
    batch_size: int,
) -> SampledImages:
    """Sample one image per prompt.

    Args:
        prompts: plain prompts, in the family's language; `N` of them. Those of similar length are decoded together.
        seeds: one seed per prompt, each in [0, 2**64).
        guidance: scale of classifier-free guidance; 1 is none and omits the unconditional half.
        temperature: divides the guided logits; 0 takes the most probable token.
        batch_size: prompts decoded together, fewer where memory runs out; changes no token in float32.

    Raises:
        ValueError: prompts and seeds differ in number.
    """
    if len(prompts) != len(seeds):
        raise ValueError(f"{len(prompts)} prompts but {len(seeds)} seeds")
    tokens = np.empty((len(prompts), model.geometry.tokens), dtype=np.uint16)
    logprobs = np.empty(len(prompts), dtype=np.float64)
    each, order = [1] * len(prompts), np.array(by_length(prompts), dtype=np.int64)

    def sample(part: slice) -> tuple[torch.Tensor, torch.Tensor]:
        rows = order[part]
        return _sample_batch(model, [prompts[row] for row in rows], [seeds[row] for row in rows], guidance, temperature)

    for part, (drawn, mean) in model.batching.run("sampling", each, batch_size, sample):
        tokens[order[part]] = drawn.cpu().numpy().astype(np.uint16)
        logprobs[order[part]] = mean.cpu().numpy()
    return SampledImages(tokens, logprobs)


def _sample_batch(
    model: UnifiedModel, prompts: Sequence[str], seeds: Sequence[int], guidance: float, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample one batch; return tokens `int64 [B, T]` and mean conditional log-probabilities `[B]`."""
    rows, length = len(prompts), model.geometry.tokens
    ids, mask = model.encode_prompts(prompts)
    halves = 1
    if guidance != 1.0:
        ids, mask = stack_left([(ids, mask), model.unconditional(ids, mask)], model.pad_id)
        halves = 2
    decoder = _Decoder(model, ids.to(model.device), mask.to(model.device))
    noise = RowNoise(seeds, model.geometry.codes)
    drawn = torch.empty((halves * rows, length), dtype=torch.int64, device=model.device)
    total = torch.zeros(rows, dtype=torch.float64, device=model.device)
    for step in range(length):
        if step:
            decoder.step(drawn[:, :step])
        logits = model.image_logits(decoder.state, drawn[:, :step]).float()
        scores = guide(logits, guidance) if halves == 2 else logits
        if temperature:  # the largest of these is a draw from softmax(scores / temperature)
            scores = scores / temperature + noise.draw().to(model.device)
        token = scores.argmax(dim=-1)
        total += logits[:rows].log_softmax(dim=-1).gather(-1, token[:, None])[:, 0]
        drawn[:, step] = token.repeat(halves)
    return drawn[:rows], total / length
