"""An OpenAI-compatible server: its address, its key, and what its failures mean. Text engine and judge share it."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from typing import Any, TypeVar

import httpx2
import openai
from openai import APIResponse, OpenAI

from ospo_core.errors import StageError, redact

ATTEMPTS = 6
"""Requests per answer; the client waits 0.5, 1, 2, 4 and 8 seconds in between, or as long as the server asks it to."""
CONNECTIONS = 64
"""Requests in flight at the same time; the server batches them."""

READS = 3
"""Attempts at reading one answer to its end."""

_RETRIED = frozenset({408, 409, 429})
_Answer = TypeVar("_Answer")


class OpenAIServer:
    """A client of one server.

    Args:
        base_url: its address, with or without `/v1`.
        model: name of the model on it.
        key_variable: environment variable with the key, if the server needs one.
        options: names of the options that hold address and model, and what to change if the server fails; for errors.
        timeout: seconds to wait for the server's next bytes.
    """

    def __init__(
        self, base_url: str, model: str, key_variable: str, options: tuple[str, str, str], timeout: float = 600.0
    ) -> None:
        self.url, self.model = base_url.rstrip("/").removesuffix("/v1") + "/v1", model
        self._address_option, self._model_option, self._way_out = options
        logging.getLogger("httpx2").setLevel(logging.WARNING)  # it logs every request, with what the address contains
        key = os.environ.get(key_variable) or "EMPTY"  # the client insists on a key even if the server wants none
        self._client = OpenAI(base_url=self.url, api_key=key, max_retries=ATTEMPTS - 1, timeout=timeout)

    @property
    def closed(self) -> bool:
        """Whether the connections are closed."""
        return self._client.is_closed()

    def ask(self, request: Callable[[OpenAI], _Answer]) -> _Answer:
        """Return what `request` returns, given the client.

        Raises:
            StageError: the server does not answer in `ATTEMPTS` attempts, refuses the request, or answers in no JSON.
        """
        try:
            return request(self._client)
        except openai.APIStatusError as error:
            if error.status_code in _RETRIED or error.status_code >= 500:
                raise self.no_answer(f"status {error.status_code}") from None
            raise StageError(
                f"the server refused a request with status {error.status_code}: {redact(_words(error))}",
                field=self._model_option,
                value=self.model,
                remedy="Check the model's name and that its window is at least engine.max_model_len",
            ) from None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise self.no_answer(f"{type(cause).__name__}: {cause}") from None
        except json.JSONDecodeError as error:
            raise self.bad_answer("an OpenAI completion", error.doc) from None

    def models(self) -> dict[str, Any]:
        """Return what the server says of each model it serves, by name; empty if it has no such list.

        Raises:
            StageError: the server does not answer.
        """
        try:
            return {model.id: model for model in self._client.models.list().data}
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise self.no_answer(f"{type(cause).__name__}: {cause}") from None
        except (openai.APIStatusError, json.JSONDecodeError, AttributeError, TypeError):
            return {}

    def read(
        self, request: Callable[[OpenAI], AbstractContextManager[APIResponse[Any]]], limit: int, seconds: float
    ) -> bytes:
        """Return the body of an answer, at most `limit` bytes, read within `seconds`; a torn one is asked for again.

        Raises:
            StageError: as `ask`, or the answer is longer or takes longer.
        """
        problem = ""
        for _ in range(READS):
            deadline = time.monotonic() + seconds
            try:
                with closing(self.ask(lambda client: request(client).__enter__())) as response:
                    body = bytearray()
                    for chunk in response.iter_bytes():
                        body += chunk
                        if len(body) > limit:
                            raise self.bad_answer(f"an answer of at most {limit} bytes", "")
                        if time.monotonic() > deadline:
                            raise self.no_answer(f"its answer was not complete after {seconds:.0f} s")
                    return bytes(body)
            except httpx2.HTTPError as error:
                problem = f"{type(error).__name__}: {error}"
        raise self.no_answer(problem)

    def no_answer(self, problem: str) -> StageError:
        """Return the error for a server that is unreachable or busy."""
        return StageError(
            f"the server did not answer in {ATTEMPTS} attempts: {redact(problem)}",
            field=self._address_option,
            value=redact(self.url),
            remedy=f"Start the server, or {self._way_out}",
        )

    def bad_answer(self, expected: str, answer: str) -> StageError:
        """Return the error for an answer that is not what was `expected`; the beginning of the answer is shown."""
        return StageError(
            f"the server's answer is not {expected}",
            field=self._address_option,
            value=redact(answer[:200]),
            remedy=f"Set {self._address_option} to the address of an OpenAI-compatible server",
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _words(error: openai.APIStatusError) -> str:
    """Return the beginning of what a server said when it refused."""
    return error.response.text[:300]
