"""Text generation with vLLM in this process: started once per phase; prefix caching shares the few-shot preamble."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ospo_core.config.sections import EngineConfig
from ospo_core.engines.base import Completion, Request, TextEngine, check_count, quiet_loading
from ospo_core.engines.tokenizer import EngineTokenizer
from ospo_core.errors import ModelError, StageError

if TYPE_CHECKING:
    from vllm import LLM

_QUIET = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}
"""Environment that vLLM reads when it is imported: engine in this process, no messages, no usage statistics."""


@contextmanager
def _unchanged_process() -> Iterator[None]:
    """Undo what starting vLLM does to this process: environment variables, and torch's threads on CPUs."""
    import torch

    before, set_num_threads = dict(os.environ), torch.set_num_threads
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)
        torch.set_num_threads = set_num_threads


def import_vllm() -> None:
    """Import vLLM, quietly; it takes longer than starting an engine."""
    os.environ.update(_QUIET)
    with _unchanged_process(), quiet_loading():
        import vllm.v1.engine.llm_engine  # noqa: F401 - and with it nearly all that an engine needs


class VllmEngine(TextEngine):
    """One `vllm.LLM`, with one seeded generator per request and structured output (by llguidance).

    On a GPU it decodes in CUDA graphs, unless `enforce_eager` says otherwise; on a CPU always eagerly.

    Token ids go in and out; the checkpoint's tokenizer turns them into text exactly as in the other engines.

    It reserves `kv_cache_gib` on a CPU and `gpu_memory_utilization` of the memory on a GPU.

    Raises:
        ModelError: vLLM cannot load the folder, or cannot get the memory it needs.
    """

    def __init__(self, config: EngineConfig, model_folder: Path) -> None:
        self.tokenizer = EngineTokenizer(model_folder, config.max_model_len)
        self.structured = config.structured_output != "off"
        import_vllm()
        with _unchanged_process(), quiet_loading():
            self._llm: Any = _start(config, model_folder)

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer the requests in one call of vLLM; raises StageError as the protocol does, and if it is closed."""
        if self._llm is None:
            raise StageError("the engine is closed", field="engine", remedy="Build a new one with build_engine")
        if not requests:
            return []
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        encoded = self.tokenizer.encode(requests)
        sampling = [
            SamplingParams(
                temperature=request.temperature,
                top_p=request.top_p,
                seed=request.seed if request.temperature > 0 else None,
                max_tokens=self.tokenizer.limit(request, len(ids)),
                stop=list(request.stop),
                stop_token_ids=sorted(self.tokenizer.end_ids),
                detokenize=bool(request.stop),  # vLLM decodes only if there is a stop string to find
                structured_outputs=StructuredOutputsParams(regex=request.regex)
                if self.structured and request.regex
                else None,
            )
            for request, ids in zip(requests, encoded, strict=True)
        ]
        outputs = self._llm.generate([{"prompt_token_ids": ids} for ids in encoded], sampling, use_tqdm=False)
        check_count(requests, outputs)
        pairs = zip(requests, outputs, strict=True)
        return [self.tokenizer.completion(output.outputs[0].token_ids, request.stop) for request, output in pairs]

    def close(self) -> None:
        """Shut vLLM down and free its memory."""
        llm, self._llm = self._llm, None
        if llm is None:
            return
        llm.llm_engine.engine_core.shutdown()  # it collects garbage itself
        del llm
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _start(config: EngineConfig, model_folder: Path) -> LLM:
    """Load the model into vLLM.

    On CPUs every prompt is prefilled in one piece: a prompt prefilled in chunks draws from its own seeded generator too
    early, and vLLM undoes that with a call that CPU generators do not have, so that the engine dies as soon as a batch
    exceeds its token budget.

    vLLM collects garbage several times while it starts. What lives already is frozen, so that it is not looked through
    each time; `close` undoes that.

    Structured output uses llguidance: with a vocabulary of 102 400 it takes about 2 ms of a processor per token for our
    patterns, and vLLM's own choice, xgrammar, 20 to 30 ms.
    """
    import torch
    from vllm import LLM

    on_gpu = torch.cuda.is_available()
    token_budget = config.max_model_len * config.max_num_seqs
    whole_prompts: dict[str, Any] = {"enable_chunked_prefill": False, "max_num_batched_tokens": token_budget}
    gc.freeze()
    try:
        return LLM(
            str(model_folder),
            dtype=config.dtype,
            max_model_len=config.max_model_len,
            max_num_seqs=config.max_num_seqs,
            gpu_memory_utilization=config.gpu_memory_utilization,
            kv_cache_memory_bytes=None if on_gpu else int(config.kv_cache_gib * 2**30),
            enforce_eager=config.enforce_eager or not on_gpu,
            enable_prefix_caching=True,
            structured_outputs_config={"backend": "guidance"},
            disable_log_stats=True,
            use_tqdm_on_load=False,
            generation_config="vllm",
            trust_remote_code=False,
            **({} if on_gpu else whole_prompts),
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(
            "vLLM cannot start with this model",
            field="engine.kind",
            value=str(model_folder),
            remedy=f"Check engine.max_model_len and the memory settings, or use engine.kind=transformers: {error}",
        ) from error
