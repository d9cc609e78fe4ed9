"""Text generation by an OpenAI-compatible server (`/v1/completions`), such as `vllm serve` in another environment."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import openai
from openai import OpenAI

from ospo_core.config.sections import EngineConfig
from ospo_core.engines.base import Completion, Finish, Request, TextEngine, cut_at_stop
from ospo_core.errors import ConfigError, StageError, redact

ATTEMPTS = 6
"""Requests per answer; the client waits 0.5, 1, 2, 4 and 8 seconds in between, or as long as the server asks it to."""
CONNECTIONS = 64
"""Requests in flight at the same time; the server batches them."""

_RETRIED = frozenset({408, 409, 429})


class EndpointEngine(TextEngine):
    """A client of the server; if the server needs a key, it comes from the environment variable OPENAI_API_KEY.

    Raises:
        ConfigError: the configuration has no address or no model name.
    """

    def __init__(self, config: EngineConfig) -> None:
        if not config.base_url or not config.served_model:
            raise ConfigError(
                "the endpoint engine needs a server and a model name",
                field="engine.base_url",
                value=config.base_url,
                remedy="Set engine.base_url and engine.served_model",
            )
        self.url, self.model = config.base_url.rstrip("/").removesuffix("/v1") + "/v1", config.served_model
        logging.getLogger("httpx2").setLevel(logging.WARNING)  # it logs every request, with what the address contains
        key = os.environ.get("OPENAI_API_KEY") or "EMPTY"  # the client insists on a key even if the server wants none
        self._client = OpenAI(base_url=self.url, api_key=key, max_retries=ATTEMPTS - 1)

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer the requests, many at a time; raises StageError if the server does not answer or refuses one."""
        if self._client.is_closed():
            raise StageError("the engine is closed", field="engine", remedy="Build a new one with build_engine")
        with ThreadPoolExecutor(max_workers=CONNECTIONS) as pool:
            return list(pool.map(self._answer, requests))

    def _answer(self, request: Request) -> Completion:
        """Request one completion; raises StageError as `generate` does, and if the answer is not a completion."""
        try:
            answer = self._client.completions.create(
                model=self.model,
                prompt=request.prompt,
                seed=request.seed,
                temperature=request.temperature,
                max_tokens=request.max_tokens,
                stop=list(request.stop) if request.stop else openai.omit,
            )
        except openai.APIStatusError as error:
            if error.status_code in _RETRIED or error.status_code >= 500:
                raise self._no_answer(f"status {error.status_code}") from None
            raise StageError(
                f"the server refused a request with status {error.status_code}: {redact(error.response.text[:300])}",
                field="engine.served_model",
                value=self.model,
                remedy="Check the model's name and that its window is at least engine.max_model_len",
            ) from None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise self._no_answer(f"{type(cause).__name__}: {cause}") from None
        except json.JSONDecodeError as error:
            raise _not_a_completion(error.doc) from None
        return _completion(answer, request)

    def _no_answer(self, problem: str) -> StageError:
        """Return the error for a server that is unreachable or busy."""
        return StageError(
            f"the server did not answer in {ATTEMPTS} attempts: {redact(problem)}",
            field="engine.base_url",
            value=redact(self.url),
            remedy="Start the server, or choose another engine.kind",
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _completion(answer: openai.types.Completion, request: Request) -> Completion:
    """Return the one choice of an answer; raises StageError if it is not an OpenAI completion."""
    try:
        choice = answer.choices[0]
        text, stopped = cut_at_stop(choice.text, request.stop)
        finish: Finish = "length" if choice.finish_reason == "length" and not stopped else "stop"
        return Completion(text.strip(), answer.usage.completion_tokens if answer.usage else 0, finish)
    except (AttributeError, IndexError, TypeError) as error:  # the client does not check what servers send
        raise _not_a_completion(str(answer)) from error


def _not_a_completion(answer: str) -> StageError:
    """Return the error for an answer that is not an OpenAI completion."""
    return StageError(
        "the server's answer is not an OpenAI completion",
        field="engine.base_url",
        value=redact(answer[:200]),
        remedy="Set engine.base_url to the address of an OpenAI-compatible server",
    )
