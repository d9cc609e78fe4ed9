"""Text generation by an OpenAI-compatible server (`/v1/completions`), such as `vllm serve` in another environment."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from ospo_core.config.sections import EngineConfig
from ospo_core.engines.base import Completion, Finish, Request, TextEngine, check_count, cut_at_stop
from ospo_core.errors import ConfigError, StageError

ATTEMPTS = 6
FIRST_WAIT = 0.5
"""Seconds before the first retry; each further wait is twice as long (15 s in all)."""
TIMEOUT = 600.0
"""Seconds to wait for one answer; a busy server queues requests."""
CONNECTIONS = 64
"""Requests under way at once; the server batches them."""

_TRY_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504})


def completions_url(base_url: str) -> str:
    """Return the completions address of a server, whether or not its address ends with `/v1`."""
    base = base_url.rstrip("/")
    return f"{base}/completions" if base.endswith("/v1") else f"{base}/v1/completions"


def _read(body: dict[str, Any], request: Request) -> Completion:
    """Return the one choice of a server's answer; raises KeyError, TypeError, IndexError or ValueError otherwise."""
    choice = body["choices"][0]
    text, stopped = cut_at_stop(str(choice["text"]), request.stop)
    usage = body.get("usage") or {}
    finish: Finish = "length" if choice.get("finish_reason") == "length" and not stopped else "stop"
    return Completion(text.strip(), int(usage.get("completion_tokens") or 0), finish)


class EndpointEngine(TextEngine):
    """A client with retries; the key, where a server wants one, comes from the environment variable OPENAI_API_KEY.

    Args:
        config: `base_url` and `served_model` are read.
        wait: sleeps for some seconds between attempts.

    Raises:
        ConfigError: the configuration has no address or no model name.
    """

    def __init__(self, config: EngineConfig, wait: Callable[[float], None] = time.sleep) -> None:
        if not config.base_url or not config.served_model:
            raise ConfigError(
                "the endpoint engine needs a server and a model name",
                field="engine.base_url",
                value=config.base_url,
                remedy="Set engine.base_url and engine.served_model",
            )
        self.url, self.model = completions_url(config.base_url), config.served_model
        self._wait = wait
        key = os.environ.get("OPENAI_API_KEY")
        self._http = httpx.Client(timeout=TIMEOUT, headers={"Authorization": f"Bearer {key}"} if key else {})

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer the requests, many at once; raises StageError when the server stays away or refuses one."""
        if self._http.is_closed:
            raise StageError("the engine is closed", field="engine", remedy="Build a new one with build_engine")
        with ThreadPoolExecutor(max_workers=CONNECTIONS) as pool:
            return check_count(requests, list(pool.map(self._answer, requests)))

    def _answer(self, request: Request) -> Completion:
        """Ask for one completion, again with growing waits while the server is away or busy."""
        problem = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                self._wait(FIRST_WAIT * 2 ** (attempt - 1))
            try:
                response = self._http.post(self.url, json=self._body(request))
            except httpx.TransportError as error:
                problem = f"{type(error).__name__}: {error}"
                continue
            if response.status_code not in _TRY_AGAIN:
                return self._completion(response, request)
            problem = f"status {response.status_code}"
        raise StageError(
            f"the server did not answer in {ATTEMPTS} attempts: {problem}",
            field="engine.base_url",
            value=self.url,
            remedy="Start the server, or choose another engine.kind",
        )

    def _body(self, request: Request) -> dict[str, Any]:
        """Return the JSON body of one request."""
        body: dict[str, Any] = {
            "model": self.model,
            "prompt": request.prompt,
            "seed": request.seed,
            "temperature": request.temperature,
            "max_tokens": request.max_tokens,
        }
        return body | {"stop": list(request.stop)} if request.stop else body

    def _completion(self, response: httpx.Response, request: Request) -> Completion:
        """Read an answer; raises StageError when the server refused or answered in another form."""
        if response.is_error:
            raise StageError(
                f"the server refused a request with status {response.status_code}: {response.text[:300]}",
                field="engine.served_model",
                value=self.model,
                remedy="Check the model's name and that its window is at least engine.max_model_len",
            )
        try:
            return _read(response.json(), request)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise StageError(
                "the server's answer is not an OpenAI completion",
                field="engine.base_url",
                value=response.text[:200],
                remedy="Point engine.base_url at an OpenAI-compatible server",
            ) from error

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
