"""Texts by transformers' `generate`, in left-padded batches of a fixed size that end with their longest answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from ospo_core.engines.base import quiet_loading


class TransformersGenerate:
    """A causal model of transformers; `folder` is a checkpoint with its tokenizer, `dtype` the type of its weights."""

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        with quiet_loading():
            model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()

    def ids(self, prompts: Sequence[str]) -> list[list[int]]:
        """Return the ids of prompts."""
        found: list[list[int]] = self._tokenizer(list(prompts))["input_ids"]
        return found

    def answers(self, prompts: Sequence[str], max_tokens: int, batch_size: int, greedy: bool) -> list[list[int]]:
        """Return the ids that answer each prompt, up to and with the end token."""
        end = int(self._tokenizer.eos_token_id)
        how: dict[str, Any] = {"do_sample": False} if greedy else {"do_sample": True, "temperature": 1.0, "top_k": 0}
        config = GenerationConfig(
            max_new_tokens=max_tokens, eos_token_id=end, pad_token_id=int(self._tokenizer.pad_token_id), **how
        )
        found: list[list[int]] = []
        for start in range(0, len(prompts), batch_size):
            part = list(prompts[start : start + batch_size])
            given = self._tokenizer(part, padding=True, padding_side="left", return_tensors="pt")
            width = given["input_ids"].shape[1]
            with torch.inference_mode():
                whole = self._model.generate(
                    given["input_ids"].to(self._model.device),
                    attention_mask=given["attention_mask"].to(self._model.device),
                    generation_config=config,
                )
            found += [_until(row, end) for row in whole[:, width:].tolist()]
        return found


def _until(ids: list[int], end: int) -> list[int]:
    """Return the ids up to and with the first end token."""
    return ids[: ids.index(end) + 1] if end in ids else ids
