"""Text generation by an OpenAI-compatible server (`/v1/completions`), such as `vllm serve` in another environment."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import openai
from openai import APIResponse, OpenAI
from pydantic import BaseModel, Field

from ospo_core.config.sections import EngineConfig
from ospo_core.engines.base import Completion, Finish, Request, TextEngine, cut_at_stop
from ospo_core.engines.openai_server import CONNECTIONS, OpenAIServer, Text
from ospo_core.errors import ConfigError, StageError, redact

_DIGEST = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_SHORT_DIGEST = 12
"""Digits of a digest that suffice to recognise the right model; only a whole one shows that it is another model."""

LONGEST_ANSWER = 1 << 20
"""Bytes of an answer that are read at most; an answer of 4 096 tokens has about 20 000."""
LONGEST_NAME = 500
"""Characters that are kept of what a server calls its model."""
SECONDS = 600.0
"""Seconds for one answer, with the time that the server lets it wait."""

logger = logging.getLogger(__name__)


class _Choice(BaseModel):
    text: Text
    finish_reason: Any = None


class _Usage(BaseModel):
    completion_tokens: int | None = Field(0, ge=0, lt=2**31)


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


class EndpointEngine(TextEngine):
    """A client of the server; if the server needs a key, it comes from the environment variable OPENAI_API_KEY.

    Before each batch it asks the server which models it serves (`/v1/models`). The served model is the right one if its
    name or its path (`root` of vLLM) contains `digest`, as the path of an exported backbone does; it is a wrong one if
    they contain another digest. If they contain none, nobody can know: that is logged, and recorded by `facts`.

    Args:
        config: the server's address and the model's name there.
        digest: of the model that the server must hold, 64 hex digits; empty: any model.

    Raises:
        ConfigError: the configuration has no address or no model name.
    """

    def __init__(self, config: EngineConfig, digest: str = "") -> None:
        if not config.base_url or not config.served_model:
            raise ConfigError(
                "the endpoint engine needs a server and a model name",
                field="engine.base_url",
                value=config.base_url,
                remedy="Set engine.base_url and engine.served_model",
            )
        options = ("engine.base_url", "engine.served_model", "choose another engine.kind")
        self._server = OpenAIServer(config.base_url, config.served_model, "OPENAI_API_KEY", options, SECONDS)
        self.url, self.model = self._server.url, self._server.model
        self.digest, self.structured_output = digest, config.structured_output
        self._served: dict[str, Any] = {}

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer the requests, many at a time; raises StageError if the server does not answer or refuses one."""
        if self._server.closed:
            raise StageError("the engine is closed", field="engine", remedy="Build a new one with build_engine")
        if self.digest or (self.structured_output == "auto" and any(request.regex for request in requests)):
            self._look_up()
        with ThreadPoolExecutor(max_workers=CONNECTIONS) as pool:
            return list(pool.map(self._answer, requests))

    def facts(self) -> Mapping[str, Any]:
        """Return the served model's name and path, and whether it was recognised as the round's model."""
        return {"served_model": self._served} if self._served else {}

    def _look_up(self) -> None:
        """Ask which models are served; raises StageError if this one is not, or is recognised as a wrong one."""
        listed = self._server.models()
        served = listed.get(self.model)
        if listed and served is None:
            raise StageError(
                "the server does not serve this model",
                field="engine.served_model",
                value=self.model,
                remedy=f"It serves {self._server.clean(', '.join(sorted(listed)))[:LONGEST_NAME]}",
            )
        path = self._server.clean((served and served.root) or "")[:LONGEST_NAME]
        known = self._served
        self._served = {
            "name": self.model,
            "path": path,
            "server": self._server.clean((served and served.owned_by) or "")[:LONGEST_NAME],
            "verified": bool(self.digest) and self._is_verified(f"{self.model} {path}"),
        }
        if self.digest and not self._served["verified"] and self._served != known:
            logger.warning(
                "nothing shows that %s serves model %s as %r: neither this name nor the path contains its digest",
                redact(self.url),
                self.digest[:_SHORT_DIGEST],
                self.model,
            )

    def _is_verified(self, names: str) -> bool:
        """Return whether a model's name and path contain the digest; raises StageError if they contain another one."""
        if self.digest[:_SHORT_DIGEST] in names:
            return True
        if _DIGEST.search(names):
            raise StageError(
                "the server holds another model than the one that the round starts from",
                field="engine.served_model",
                value=names.strip(),
                remedy="Serve the exported text backbone of the round's model: "
                f"`vllm serve <storage.scratch>/exports/{self.digest} --served-model-name {self.model}`",
            )
        return False

    def _constraint(self, request: Request) -> dict[str, Any]:
        """Return the part of a request's body that enforces the form of its answer, in vLLM's own terms."""
        on = self.structured_output
        enforced = on == "on" or (on == "auto" and self._served.get("server") == "vllm")
        return {"structured_outputs": {"regex": request.regex}} if enforced and request.regex else {}

    def _answer(self, asked: Request) -> Completion:
        """Request one completion; raises StageError as `generate` does, and if the answer is not a completion."""

        def request(client: OpenAI) -> AbstractContextManager[APIResponse[Any]]:
            return client.completions.with_streaming_response.create(
                model=self.model,
                prompt=asked.prompt,
                seed=asked.seed,
                temperature=asked.temperature,
                max_tokens=asked.max_tokens,
                stop=list(asked.stop) if asked.stop else openai.omit,
                top_p=asked.top_p if asked.top_p < 1 else openai.omit,
                extra_body=self._constraint(asked) or None,
            )

        answer = self._server.ask(request, _Completion, "an OpenAI completion", LONGEST_ANSWER)
        choice = answer.choices[0]
        text, stopped = cut_at_stop(choice.text, asked.stop)
        finish: Finish = "length" if choice.finish_reason == "length" and not stopped else "stop"
        return Completion(text.strip(), (answer.usage and answer.usage.completion_tokens) or 0, finish)

    def close(self) -> None:
        """Close the connections."""
        self._server.close()
