"""Text generation by an OpenAI-compatible server (`/v1/completions`), such as `vllm serve` in another environment."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import openai

from ospo_core.config.sections import EngineConfig
from ospo_core.engines.base import Completion, Finish, Request, TextEngine, cut_at_stop
from ospo_core.engines.openai_server import CONNECTIONS, OpenAIServer
from ospo_core.errors import ConfigError, StageError


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
        options = ("engine.base_url", "engine.served_model", "choose another engine.kind")
        self._server = OpenAIServer(config.base_url, config.served_model, "OPENAI_API_KEY", options)
        self.url, self.model = self._server.url, self._server.model

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer the requests, many at a time; raises StageError if the server does not answer or refuses one."""
        if self._server.closed:
            raise StageError("the engine is closed", field="engine", remedy="Build a new one with build_engine")
        with ThreadPoolExecutor(max_workers=CONNECTIONS) as pool:
            return list(pool.map(self._answer, requests))

    def _answer(self, request: Request) -> Completion:
        """Request one completion; raises StageError as `generate` does, and if the answer is not a completion."""
        answer = self._server.ask(
            lambda client: client.completions.create(
                model=self.model,
                prompt=request.prompt,
                seed=request.seed,
                temperature=request.temperature,
                max_tokens=request.max_tokens,
                stop=list(request.stop) if request.stop else openai.omit,
            )
        )
        try:
            choice = answer.choices[0]
            text, stopped = cut_at_stop(choice.text, request.stop)
            finish: Finish = "length" if choice.finish_reason == "length" and not stopped else "stop"
            return Completion(text.strip(), answer.usage.completion_tokens if answer.usage else 0, finish)
        except (AttributeError, IndexError, TypeError) as error:  # the client does not check what servers send
            raise self._server.bad_answer("an OpenAI completion", str(answer)) from error

    def close(self) -> None:
        """Close the connections."""
        self._server.close()
