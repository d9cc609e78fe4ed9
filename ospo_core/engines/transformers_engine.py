"""Text generation with plain transformers: slower than vLLM, but runs wherever torch does; no structured output.

The decoding loop is own code because `generate` shares one random generator between the rows of a batch.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, TopPLogitsWarper

from ospo_core.config.sections import EngineConfig
from ospo_core.engines.base import Completion, Request, TextEngine, cut_at_stop, quiet_loading
from ospo_core.engines.tokenizer import OFFLINE, EngineTokenizer, loading
from ospo_core.errors import StageError


class _Row:
    """One request being answered: its random generator, its tokens so far, and whether it has ended."""

    def __init__(self, request: Request, limit: int, tokenizer: EngineTokenizer) -> None:
        self.request, self.limit, self.tokenizer = request, limit, tokenizer
        self.ids: list[int] = []
        self.done = False
        self.noise = torch.Generator().manual_seed(request.seed)
        self.nucleus = TopPLogitsWarper(request.top_p) if request.top_p < 1 else None

    def choose(self, logits: Tensor) -> int:
        """Return the next token from logits [V] float32: the largest, or drawn within top_p by this row's noise."""
        if self.request.temperature == 0:
            return int(logits.argmax())
        scaled = logits.double() / self.request.temperature
        if self.nucleus is not None:
            scaled = self.nucleus(torch.empty(1, 0, dtype=torch.long), scaled[None])[0]
        uniform = torch.rand(logits.shape, generator=self.noise, dtype=torch.float64)
        gumbel = -torch.log(-torch.log(uniform.clamp_min(1e-300)))
        return int((scaled + gumbel).argmax())

    def push(self, token: int) -> None:
        """Append a token and note whether the answer is complete."""
        self.ids.append(token)
        self.done = token in self.tokenizer.end_ids or len(self.ids) >= self.limit
        if self.request.stop and not self.done:
            self.done = cut_at_stop(self.tokenizer.decode(self.ids), self.request.stop)[1]


class TransformersEngine(TextEngine):
    """Left-padded batches of at most `max_num_seqs` rows, each with its own random generator.

    It ignores `Request.regex`: a stage parses what the model writes freely.

    Raises:
        ModelError: the folder cannot be loaded.
    """

    def __init__(self, config: EngineConfig, model_folder: Path) -> None:
        self.config = config
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.tokenizer = EngineTokenizer(model_folder, config.max_model_len)
        options = {"dtype": getattr(torch, config.dtype), "use_safetensors": True}
        with loading("the language model", model_folder), quiet_loading():
            model: Any = AutoModelForCausalLM.from_pretrained(model_folder, **options, **OFFLINE)
        self.model = model.to(self.device).eval()
        if self.device == "cuda":
            torch.backends.cuda.enable_cudnn_sdp(False)  # it plans for 0.07 s at every length, and so at every token

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer the requests batch by batch; raises StageError as the protocol does, and if the engine is closed."""
        if self.model is None:
            raise StageError("the engine is closed", field="engine", remedy="Build a new one with build_engine")
        encoded = self.tokenizer.encode(requests)
        answers: list[Completion] = []
        for start in range(0, len(requests), self.config.max_num_seqs):
            part = slice(start, start + self.config.max_num_seqs)
            answers += self._batch(requests[part], encoded[part])
        return answers

    @torch.inference_mode()
    def _batch(self, requests: Sequence[Request], prompts: list[list[int]]) -> list[Completion]:
        """Answer one batch of requests, padded on the left, token by token with a key-value cache."""
        rows = [
            _Row(request, self.tokenizer.limit(request, len(ids)), self.tokenizer)
            for request, ids in zip(requests, prompts, strict=True)
        ]
        width, filler = max(map(len, prompts)), next(iter(self.tokenizer.end_ids))
        ids = torch.tensor([[filler] * (width - len(row)) + row for row in prompts], device=self.device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts], device=self.device)
        positions = (mask.cumsum(1) - 1).clamp_min(0)
        cache: Any = None
        while not all(row.done for row in rows):
            output = self.model(
                input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True,
                logits_to_keep=1,
            )  # fmt: skip
            cache = output.past_key_values
            for row, scores in zip(rows, output.logits[:, -1].float().cpu(), strict=True):
                if not row.done:
                    row.push(row.choose(scores))
            ids = torch.tensor([[row.ids[-1]] for row in rows], device=self.device)  # any token for ended rows
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            positions = positions[:, -1:] + 1
        return [self.tokenizer.completion(row.ids, row.request.stop) for row in rows]

    def close(self) -> None:
        """Delete the model and free its memory."""
        self.model = None
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()
