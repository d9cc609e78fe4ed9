"""Sample image tokens, with classifier-free guidance and noise that belongs to the row.

Every row has a generator of its own, seeded by its own seed, and draws `torch.rand(codes)` per step: the noise of a row
does not depend on its batch (docs/method.md, trap 3). The token is the argmax of `logits / temperature + gumbel`, which
is a draw from the softmax. The batch still changes the rounding of matrix products: in float32 that can change a token
only where two candidates tie to the last bits, in bfloat16 it often does (docs/method.md, trap 13).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Cache

from ospo_core.models.base import UnifiedModel
from ospo_core.models.sequences import positions, stack_left


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


class _Decoder:
    """The growing sequences of one batch: cache, mask and next positions of all halves (`R` rows).

    Attributes:
        state: `[R, D]`, the state from which the next token is predicted.
    """

    def __init__(self, model: UnifiedModel, ids: torch.Tensor, mask: torch.Tensor) -> None:
        self._model, self._mask = model, mask
        self._cache: Cache | None = None
        self._next = mask.sum(dim=-1, keepdim=True)
        self.state = self._forward(model.embed_text(ids), positions(mask))

    def step(self, tokens: torch.Tensor) -> None:
        """Append the last of the image tokens `[R, S]` drawn so far."""
        embeddings = self._model.embed_image(tokens, start=tokens.shape[1] - 1)
        width = embeddings.shape[1]
        if not width:
            return
        self._mask = torch.cat([self._mask, self._mask.new_ones((len(tokens), width))], dim=-1)
        self.state = self._forward(embeddings, self._next + torch.arange(width, device=self._next.device))
        self._next = self._next + width

    def _forward(self, embeddings: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        """Run the language model over new embeddings `[R, P, D]` and return the last state `[R, D]`."""
        output = self._model.backbone(
            inputs_embeds=embeddings,
            attention_mask=self._mask,
            position_ids=position_ids,
            past_key_values=self._cache,
            use_cache=True,
        )
        self._cache = output.past_key_values
        state: torch.Tensor = output.last_hidden_state[:, -1]
        return state


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
        prompts: plain prompts, in the family's language; `N` of them.
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
    each = [1] * len(prompts)

    def sample(part: slice) -> tuple[torch.Tensor, torch.Tensor]:
        return _sample_batch(model, prompts[part], seeds[part], guidance, temperature)

    for part, (drawn, mean) in model.batching.run("sampling", each, batch_size, sample):
        tokens[part] = drawn.cpu().numpy().astype(np.uint16)
        logprobs[part] = mean.cpu().numpy()
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
