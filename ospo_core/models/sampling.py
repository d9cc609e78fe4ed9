"""Sample image tokens, with classifier-free guidance and noise that belongs to the row.

The noise of a row is a function of its seed, the step and the code, so it does not depend on the batch
(docs/method.md, trap 3). The token is the argmax of `logits / temperature + gumbel`, which
is a draw from the softmax. The batch still changes the rounding of matrix products: in float32 that can change a token
only where two candidates tie to the last bits, in bfloat16 it often does (docs/method.md, trap 13).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from ospo_core.models.base import UnifiedModel
from ospo_core.models.decoder import Decoder, LlamaDecoder, PlainDecoder, llama_weights
from ospo_core.models.noise import gumbel, row_keys
from ospo_core.models.sequences import by_length, stack_left


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
    ids, mask = model.encode_prompts(prompts)
    if guidance != 1.0:
        ids, mask = stack_left([(ids, mask), model.unconditional(ids, mask)], model.pad_id)
    weights = llama_weights(model.backbone)
    decoder: Decoder = PlainDecoder(model)
    if weights:
        capacity = ids.shape[1] + model.token_offsets(model.geometry.tokens)[-1]
        decoder = LlamaDecoder(model, weights, len(ids), capacity)
    return _Loop(model, decoder, len(prompts), guidance, temperature).run(ids, mask, seeds)


class _Loop:
    """Draws the tokens of one batch, `B` rows; what changes from step to step are tensors on the device.

    Args:
        model: the model.
        decoder: of the conditional rows, then of the unconditional ones if there is guidance.
        rows: `B`.
        guidance: see `sample_images`.
        temperature: see `sample_images`.
    """

    def __init__(self, model: UnifiedModel, decoder: Decoder, rows: int, guidance: float, temperature: float) -> None:
        self._model, self._decoder, self._rows = model, decoder, rows
        self._guidance, self._temperature = guidance, temperature
        self._halves = 1 if guidance == 1.0 else 2
        self._table, self._codes = model.code_table(), torch.arange(model.geometry.codes, device=model.device)
        self._drawn = torch.zeros((model.geometry.tokens, rows), dtype=torch.int64, device=model.device)
        self._total = torch.zeros(rows, dtype=torch.float64, device=model.device)
        self._step = torch.zeros(1, dtype=torch.int64, device=model.device)
        self._keys = torch.zeros(rows, dtype=torch.int64, device=model.device)

    def run(self, ids: torch.Tensor, mask: torch.Tensor, seeds: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw one image per row after the prompts `[R, L]` of all halves; return as `_sample_batch` does."""
        self._keys.copy_(row_keys(seeds, self._model.device))
        self._step.zero_()
        self._total.zero_()
        self._decoder.begin(ids, mask)
        self._draw(self._before(0))
        for count in range(1, len(self._drawn)):
            before = self._before(count)
            self._decoder.step(self._embedded(before))
            self._draw(before)
        return self._drawn.T.clone(), self._total / len(self._drawn)

    def _before(self, count: int) -> torch.Tensor:
        """Return the first `count` tokens of all rows, `[R, S]`: the last one is enough where there is a table."""
        first = 0 if self._table is None else max(count - 1, 0)
        return self._drawn[first:count].T.repeat(self._halves, 1)

    def _embedded(self, before: torch.Tensor) -> torch.Tensor:
        if self._table is None:
            return self._model.embed_image(before, start=before.shape[1] - 1)
        return functional.embedding(before, self._table)

    def _draw(self, before: torch.Tensor) -> None:
        """Draw one token of every row from the decoder's states."""
        logits = self._model.image_logits(self._decoder.state, before).float()
        scores = guide(logits, self._guidance) if self._halves == 2 else logits
        if self._temperature:  # the largest of these is a draw from softmax(scores / temperature)
            scores = gumbel(self._keys, self._step, self._codes).add_(scores, alpha=1 / self._temperature)
        token = scores.argmax(dim=-1)
        conditional = logits[: self._rows]
        self._total += conditional.gather(-1, token[:, None])[:, 0] - conditional.logsumexp(dim=-1)
        self._drawn.index_copy_(0, self._step, token[None])
        self._step += 1
