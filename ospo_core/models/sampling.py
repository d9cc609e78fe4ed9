"""Sample image tokens, with classifier-free guidance and noise that belongs to the row.

Every row has a generator of its own, seeded by its own seed, and draws `torch.rand(codes)` each step: the noise of a
row does not depend on the batch it is in (method, trap 3). The token is the largest of `logits / temperature +
gumbel`, which is a draw from the softmax. What remains of the batch is rounding in matrix products; it can
change a token only where two candidates tie to the last bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Cache

from ospo_core.models.layout import batches, encode_generation, positions, unconditional_ids
from ospo_core.models.loading import LoadedModel


@dataclass(frozen=True)
class SampledImages:
    """Sampled images.

    Attributes:
        tokens: `uint16 [N, T]`, row-major.
        mean_logprob: `float64 [N]`: `l(y|x)`, mean log-probability of the tokens given the prompt at temperature 1 and
            without guidance (method, "Symbols"), nats.
    """

    tokens: NDArray[np.uint16]
    mean_logprob: NDArray[np.float64]


class RowNoise:
    """Gumbel noise for a batch, each row from its own generator.

    Args:
        seeds: one seed a row.
        codes: values a row draws each step.
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
    """The growing sequences of one batch: cache, mask and next positions of all halves (`R` rows)."""

    def __init__(self, loaded: LoadedModel, ids: torch.Tensor, mask: torch.Tensor) -> None:
        self._janus = loaded.model.model
        self._mask = mask
        self._cache: Cache | None = None
        self._next = mask.sum(dim=-1, keepdim=True)
        self.logits = self._forward(self._janus.get_input_embeddings()(ids), positions(mask))

    def step(self, tokens: torch.Tensor) -> None:
        """Append image tokens `[R]` and compute the logits that follow."""
        embeddings = self._janus.generation_aligner(self._janus.generation_embeddings(tokens[:, None]))
        self._mask = torch.cat([self._mask, torch.ones_like(self._next)], dim=-1)
        self.logits = self._forward(embeddings, self._next)
        self._next = self._next + 1

    def _forward(self, embeddings: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        """Run the language model over new embeddings `[R, S, D]`; return the last image logits `float32 [R, codes]`."""
        output = self._janus.language_model(
            inputs_embeds=embeddings,
            attention_mask=self._mask,
            position_ids=position_ids,
            past_key_values=self._cache,
            use_cache=True,
        )
        self._cache = output.past_key_values
        logits: torch.Tensor = self._janus.generation_head(output.last_hidden_state[:, -1]).float()
        return logits


def guide(logits: torch.Tensor, guidance: float) -> torch.Tensor:
    """Combine the halves `[2B, K]` (conditional first): `uncond + guidance (cond - uncond)`, `[B, K]` (method, 2)."""
    conditional, unconditional = logits.chunk(2)
    return unconditional + guidance * (conditional - unconditional)


@torch.inference_mode()
def sample_images(
    loaded: LoadedModel,
    prompts: Sequence[str],
    seeds: Sequence[int],
    guidance: float,
    temperature: float,
    batch_size: int,
) -> SampledImages:
    """Sample one image a prompt.

    Args:
        loaded: the model.
        prompts: plain prompts, in the family's language; `N` of them.
        seeds: one seed a prompt, each in [0, 2**64).
        guidance: scale of classifier-free guidance; 1 is none and leaves the unconditional half out.
        temperature: divides the guided logits; 0 takes the most probable token.
        batch_size: prompts decoded together; changes no token.

    Raises:
        ValueError: prompts and seeds differ in number.
    """
    if len(prompts) != len(seeds):
        raise ValueError(f"{len(prompts)} prompts but {len(seeds)} seeds")
    tokens = np.empty((len(prompts), loaded.image_tokens), dtype=np.uint16)
    logprobs = np.empty(len(prompts), dtype=np.float64)
    for part in batches(len(prompts), batch_size):
        drawn, mean = _sample_batch(loaded, prompts[part], seeds[part], guidance, temperature)
        tokens[part] = drawn.cpu().numpy().astype(np.uint16)
        logprobs[part] = mean.double().cpu().numpy()
    return SampledImages(tokens, logprobs)


def _sample_batch(
    loaded: LoadedModel, prompts: Sequence[str], seeds: Sequence[int], guidance: float, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample one batch; return tokens `int64 [B, T]` and mean conditional log-probabilities `[B]`."""
    ids, mask = (part.to(loaded.device) for part in encode_generation(loaded, prompts))
    guided = guidance != 1.0
    if guided:
        ids, mask = torch.cat([ids, unconditional_ids(ids, loaded.special)]), mask.repeat(2, 1)
    decoder = _Decoder(loaded, ids, mask)
    noise = RowNoise(seeds, loaded.codes)
    drawn = torch.empty((len(prompts), loaded.image_tokens), dtype=torch.int64, device=loaded.device)
    total = torch.zeros(len(prompts), dtype=torch.float64, device=loaded.device)
    for step in range(loaded.image_tokens):
        if step:
            previous = drawn[:, step - 1]
            decoder.step(previous.repeat(2) if guided else previous)
        logits = guide(decoder.logits, guidance) if guided else decoder.logits
        token = _choose(logits, temperature, noise)
        conditional = decoder.logits[: len(prompts)].log_softmax(dim=-1)
        total += conditional.gather(-1, token[:, None])[:, 0]
        drawn[:, step] = token
    return drawn, total / loaded.image_tokens


def _choose(logits: torch.Tensor, temperature: float, noise: RowNoise) -> torch.Tensor:
    """Draw one token a row from `softmax(logits / temperature)`, `[B, K] -> [B]`, or take the largest at 0."""
    if temperature == 0:
        return logits.argmax(dim=-1)
    return (logits / temperature + noise.draw().to(logits.device)).argmax(dim=-1)
