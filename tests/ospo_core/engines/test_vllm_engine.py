"""vLLM in this process, started once, in a thread as a task runner would: same greedy texts as transformers."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from ospo_core.config.sections import EngineConfig
from ospo_core.engines import Completion, Request, build_engine
from ospo_core.errors import StageError
from tests.support.tiny_llama import make_tiny_llama

PROMPTS = ["<|User|> : write a prompt <|Assistant|> :", "a", "is there a red circle left of the blue star ?", "two red"]
GREEDY = [Request(prompt, 0, 0.0, 12) for prompt in PROMPTS]
STOPPED = [Request(prompt, 0, 0.0, 12, stop=("blue", "the")) for prompt in PROMPTS]
LONG = [Request("is there a red circle left of the blue star ? " * 4, seed, 1.0, 2) for seed in range(120)]
SAMPLED = [Request(prompt, 2**63 - 1 - seed, 1.0, 12) for seed, prompt in enumerate(PROMPTS * 2)]


def use_vllm(folder: Path) -> tuple[list[Completion], list[Completion], list[Completion]]:
    """Greedy, stopped and sampled answers; the sampled ones are checked to be the same in another order."""
    config = EngineConfig(kind="vllm", kv_cache_gib=0.02, max_num_seqs=128, max_model_len=64)
    with build_engine(config, folder) as engine:
        assert engine.generate([]) == []
        sampled = engine.generate(SAMPLED)
        assert engine.generate(SAMPLED[::-1])[::-1] == sampled
        assert len(engine.generate(LONG)) == len(LONG), "seeded prompts longer together than one step's tokens"
        answers = engine.generate(GREEDY), engine.generate(STOPPED), sampled
    engine.close()
    with pytest.raises(StageError, match="closed"):
        engine.generate(GREEDY)
    return answers


@pytest.mark.slow_engine
def test_vllm_and_transformers_answer_alike(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    folder = make_tiny_llama(tmp_path)
    threads, environment = torch.set_num_threads, set(os.environ)
    with ThreadPoolExecutor(1) as pool:
        greedy, stopped, sampled = pool.submit(use_vllm, folder).result()
    with build_engine(EngineConfig(kind="transformers", max_model_len=64), folder) as engine:
        assert engine.generate(GREEDY) == greedy
        assert [done.text for done in engine.generate(STOPPED)] == [done.text for done in stopped]
    assert len({done.text for done in sampled}) > len(PROMPTS)
    assert torch.set_num_threads is threads and not {"LD_PRELOAD"} & (set(os.environ) - environment)
