"""Sample image tokens, with classifier-free guidance and noise that belongs to the row.

The noise of a row is a function of its seed, the step and the code, so it does not depend on the batch
(docs/method.md, trap 3). The token is the argmax of `logits / temperature + gumbel`, which
is a draw from the softmax. The batch still changes the rounding of matrix products: in float32 that can change a token
only where two candidates tie to the last bits, in bfloat16 it often does (docs/method.md, trap 13).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from ospo_core.models.base import UnifiedModel
from ospo_core.models.batching import is_out_of_memory
from ospo_core.models.decoder import Decoder, LlamaDecoder, LlamaWeights, PlainDecoder, llama_weights
from ospo_core.models.noise import gumbel, row_keys
from ospo_core.models.sequences import by_length, stack_left

SEGMENTS = {"cuda": 64}
"""By device, the positions to a multiple of which a step attends; elsewhere to no more than there are."""
CAPTURE = True
"""Whether steps are captured in CUDA graphs; only for looking at single steps it is not."""

logger = logging.getLogger(__name__)


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
    if model.device.type in SEGMENTS:  # the memory of the longest ones, and what is captured with it, suits all others
        order = order[::-1]

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
    count, spare = len(prompts), _spare_rows(model, len(prompts), guidance, temperature)
    prompts, seeds = [*prompts, *[prompts[0]] * spare], [*seeds, *[seeds[0]] * spare]
    ids, mask = model.encode_prompts(prompts)
    if guidance != 1.0:
        ids, mask = stack_left([(ids, mask), model.unconditional(ids, mask)], model.pad_id)
    loop = _loop(model, ids, len(prompts), guidance, temperature)
    tokens, mean = loop.run(ids, mask, seeds)
    if isinstance(loop, _GraphLoop):
        model.batching.kept["sampling"] = loop
    return tokens[:count], mean[:count]


def _spare_rows(model: UnifiedModel, rows: int, guidance: float, temperature: float) -> int:
    """Return how many rows to add to a batch: drawing them costs less than capturing steps with fewer rows."""
    last = model.batching.kept.get("sampling")
    return 0 if last is None or model.device.type not in SEGMENTS else last.spare(rows, guidance, temperature)


def _loop(model: UnifiedModel, ids: torch.Tensor, rows: int, guidance: float, temperature: float) -> _Loop:
    """Return what draws a batch of `rows` after the prompts `[R, L]`: that of the last batch where it was like it."""
    weights, table, kept = llama_weights(model.backbone), model.code_table(), model.batching.kept
    if weights is None or table is None:
        return _Loop(model, _decoder(model, weights, ids), rows, guidance, temperature)
    capacity, last = _capacity(model, ids), kept.pop("sampling", None)  # taken out: another thread makes its own
    if last is not None and last.fits(weights, table, (rows, guidance, temperature), capacity):
        same: _GraphLoop = last
        return same
    del last  # before more memory is taken
    decoder = LlamaDecoder(model, weights, len(ids), capacity, SEGMENTS.get(model.device.type, 1))
    return _GraphLoop(model, decoder, rows, guidance, temperature, table)


def _decoder(model: UnifiedModel, weights: LlamaWeights | None, ids: torch.Tensor) -> Decoder:
    return PlainDecoder(model) if weights is None else LlamaDecoder(model, weights, len(ids), _capacity(model, ids))


def _capacity(model: UnifiedModel, ids: torch.Tensor) -> int:
    """Return the positions of the longest row, rounded up, so that batches of other prompts can use the same memory."""
    return -(-(ids.shape[1] + model.token_offsets(model.geometry.tokens)[-1]) // 16) * 16


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
        self._model, self._decoder, self._kind = model, decoder, (rows, guidance, temperature)
        self._halves = 1 if guidance == 1.0 else 2
        device, length = model.device, model.geometry.tokens
        self._codes = torch.arange(model.geometry.codes, device=device)
        self._drawn = torch.zeros((length, rows), dtype=torch.int64, device=device)
        self._total = torch.zeros(rows, dtype=torch.float64, device=device)
        self._step = torch.zeros(1, dtype=torch.int64, device=device)
        self._keys = torch.zeros(rows, dtype=torch.int64, device=device)

    def run(self, ids: torch.Tensor, mask: torch.Tensor, seeds: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw one image per row after the prompts `[R, L]` of all halves; return as `_sample_batch` does."""
        self._keys.copy_(row_keys(seeds, self._model.device))
        self._step.zero_()
        self._total.zero_()
        self._decoder.begin(ids, mask)
        self._draw(self._before(0))
        for count in range(1, len(self._drawn)):
            self._advance(count)
        return self._drawn.T.clone(), self._total / len(self._drawn)

    def _before(self, count: int) -> torch.Tensor:
        """Return the first `count` tokens of all rows, `[R, S]`."""
        return self._drawn[:count].T.repeat(self._halves, 1)

    def _advance(self, count: int) -> None:
        """Append the last of the `count` tokens drawn so far, and draw the next one."""
        before = self._before(count)
        self._decoder.step(self._model.embed_image(before, start=count - 1))
        self._draw(before)

    def _draw(self, before: torch.Tensor) -> torch.Tensor:
        """Draw one token of every row, `int64 [B]`, from the decoder's states."""
        rows, guidance, temperature = self._kind
        logits = self._model.image_logits(self._decoder.state, before).float()
        scores = guide(logits, guidance) if self._halves == 2 else logits
        if temperature:  # the largest of these is a draw from softmax(scores / temperature)
            scores = gumbel(self._keys, self._step, self._codes).add_(scores, alpha=1 / temperature)
        token = scores.argmax(dim=-1)
        self._total += logits[:rows].gather(-1, token[:, None])[:, 0] - logits[:rows].logsumexp(dim=-1)
        self._drawn.index_copy_(0, self._step, token[None])
        self._step += 1
        return token


class _GraphLoop(_Loop):
    """The same for a plain Llama with a table of codes: a step reads nothing that the host knows but its segment.

    So on a GPU the step is captured in one CUDA graph per segment, and replayed for all later steps and batches.
    """

    _decoder: LlamaDecoder

    def __init__(
        self,
        model: UnifiedModel,
        decoder: LlamaDecoder,
        rows: int,
        guidance: float,
        temperature: float,
        table: torch.Tensor,
    ) -> None:
        super().__init__(model, decoder, rows, guidance, temperature)
        self._table, self._last = table, torch.zeros(rows, dtype=torch.int64, device=model.device)
        self._none = torch.zeros((self._halves * rows, 0), dtype=torch.int64, device=model.device)
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._stream = torch.cuda.Stream(model.device) if CAPTURE and model.device.type == "cuda" else None

    def fits(self, weights: LlamaWeights, table: torch.Tensor, kind: tuple[int, float, float], capacity: int) -> bool:
        """Return whether a batch of that kind can be drawn with the memory and the graphs of this one."""
        decoder = self._decoder
        return (
            weights is decoder.weights and table is self._table and kind == self._kind and capacity <= decoder.capacity
        )

    def spare(self, rows: int, guidance: float, temperature: float) -> int:
        """Return how many rows more it draws than these, where it draws their kind."""
        own, *kind = self._kind
        return max(0, own - rows) if kind == [guidance, temperature] else 0

    def _before(self, count: int) -> torch.Tensor:
        return self._none

    def _draw(self, before: torch.Tensor) -> torch.Tensor:
        return self._last.copy_(super()._draw(before))

    def _advance(self, count: int) -> None:
        limit = self._decoder.limit
        if limit in self._graphs:
            self._graphs[limit].replay()
        elif self._stream is None:
            self._compute(limit)
        else:
            self._capture(limit, self._stream)
        self._decoder.width += 1

    def _compute(self, limit: int) -> None:
        """Append the last tokens and draw the next ones, attending to the first `limit` positions."""
        self._decoder.append(functional.embedding(self._last, self._table).repeat(self._halves, 1), limit)
        self._draw(self._none)

    def _capture(self, limit: int, stream: torch.cuda.Stream) -> None:
        """Make the step, then capture it for the next ones; capturing computes nothing."""
        current = torch.cuda.current_stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            self._compute(limit)
        current.wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        others = next(iter(self._graphs.values()), None)
        try:
            with torch.cuda.graph(graph, pool=others.pool() if others else None, stream=stream):
                self._compute(limit)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            logger.warning("A step cannot be captured in a CUDA graph, so images are drawn more slowly: %s", error)
            self._stream = None
        else:
            self._graphs[limit] = graph
