"""An OpenAI-compatible server: its address, its key, and what its failures mean. Text engine and judge share it."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from typing import Annotated, Any, TypeVar
from urllib.parse import unquote

import httpx2
import openai
from openai import APIResponse, OpenAI
from pydantic import BaseModel, BeforeValidator, ValidationError

from ospo_core.engines.bounded_http import LONGEST, bounded_client
from ospo_core.errors import ConfigError, StageError, redact

ATTEMPTS = 6
"""Requests per answer; the client waits 0.5, 1, 2, 4 and 8 seconds in between, or as long as the server asks it to."""
CONNECTIONS = 64
"""Requests in flight at the same time; the server batches them."""

READS = 3
"""Attempts at reading one answer to its end."""

_RETRIED = frozenset({408, 409, 429})
_NO_KEY = "EMPTY"
"""The client insists on a key even if the server wants none."""
_SHOWN = 300
"""Characters of an answer that a message shows."""
_SHORTEST_SECRET = 4

_Reply = TypeVar("_Reply", bound=BaseModel)


def _whole(text: object) -> object:
    """Replace lone surrogates, which JSON may spell and nothing can store, by what stands for undecodable bytes."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if isinstance(text, str) else text


Text = Annotated[str, BeforeValidator(_whole)]
"""A text in an answer."""

Request = Callable[[OpenAI], AbstractContextManager[APIResponse[Any]]]
"""Sends a request by `with_streaming_response` of the client."""


class ServedModel(BaseModel):
    """What a server says of a model: its name, its path (vLLM), and who serves it."""

    id: str
    root: str | None = None
    owned_by: str | None = None


class _Served(BaseModel):
    data: list[ServedModel]


class OpenAIServer:
    """A client of one server.

    Args:
        base_url: its address, with or without `/v1`.
        model: name of the model on it.
        key_variable: environment variable with the key, if the server needs one.
        options: names of the options that hold address and model, and what to change if the server fails; for errors.
        seconds: in which an answer must be complete, its headers included.

    Raises:
        ConfigError: `base_url` is not the address of a server, or the key cannot be sent.
    """

    def __init__(
        self, base_url: str, model: str, key_variable: str, options: tuple[str, str, str], seconds: float = 600.0
    ) -> None:
        self.url, self.model = base_url.rstrip("/").removesuffix("/v1") + "/v1", model
        self._address_option, self._model_option, self._way_out = options
        key = os.environ.get(key_variable) or _NO_KEY
        self._secrets = _secrets_of(self._checked_url(), key)
        if not (key.isascii() and key.isprintable()):
            raise ConfigError("the key cannot be sent: it has blanks or marks that no key has", field=key_variable)
        logging.getLogger("httpx2").setLevel(logging.WARNING)  # it logs every request, with what the address contains
        self._seconds = seconds
        self._client = OpenAI(
            base_url=self.url, api_key=key, max_retries=ATTEMPTS - 1, http_client=bounded_client(seconds)
        )

    def _checked_url(self) -> httpx2.URL:
        """Return the address; raises ConfigError if there can be no server at it."""
        try:
            url = httpx2.URL(self.url)
            url.host.encode("idna")  # as the system looks it up
            usable = url.scheme in {"http", "https"} and bool(url.host) and (url.port or 1) < 2**16
        except (httpx2.InvalidURL, ValueError):
            usable = False
        if not usable:
            raise ConfigError(
                "not the address of a server",
                field=self._address_option,
                value=redact(self.url),
                remedy="Give it as http://HOST:PORT or https://HOST",
            )
        return url

    @property
    def closed(self) -> bool:
        """Whether the connections are closed."""
        return self._client.is_closed()

    def ask(self, request: Request, reply: type[_Reply], expected: str, longest: int) -> _Reply:
        """Return an answer of at most `longest` bytes, checked; one that was torn is asked for again.

        Args:
            request: sends the request.
            reply: what the answer must be.
            expected: what that is in words.

        Raises:
            StageError: the server does not answer in `ATTEMPTS` attempts, refuses the request, or its answer is
                something else, is longer, is not complete in time, or is torn each time.
        """
        try:
            body = self._read(request, longest)
        except openai.APIStatusError as error:
            if error.status_code in _RETRIED or error.status_code >= 500:
                raise self._no_answer(f"status {error.status_code}") from None
            raise StageError(
                f"the server refused a request with status {error.status_code}: {self._shown(error.response.text)}",
                field=self._model_option,
                value=self.model,
                remedy="Check the model's name and that its window is at least engine.max_model_len",
            ) from None
        except openai.APIConnectionError as error:
            raise self._unreachable(error) from None
        try:
            return reply.model_validate(json.loads(body))
        except (ValueError, RecursionError):  # no JSON, no UTF-8, or pydantic's ValidationError
            raise self._bad_answer(expected, body.decode("utf-8", "replace")) from None

    def models(self) -> dict[str, ServedModel]:
        """Return what the server says of each model it serves, by name; empty if it has no such list.

        Raises:
            StageError: the server does not answer, or not in time.
        """
        try:
            body = self._read(lambda client: client.models.with_streaming_response.list(), LONGEST)
            return {model.id: model for model in _Served.model_validate_json(body).data}
        except openai.APIConnectionError as error:
            raise self._unreachable(error) from None
        except (openai.APIStatusError, ValidationError):
            return {}

    def _read(self, request: Request, longest: int) -> bytes:
        """Return the body of an answer, as `read`; failures of the client are raised as they are."""
        problem = ""
        for _ in range(READS):
            body = bytearray()
            try:
                with closing(request(self._client).__enter__()) as response:
                    for chunk in response.iter_bytes():
                        body += chunk
                        if len(body) > longest:
                            raise self._bad_answer(f"an answer of at most {longest} bytes", "")
                    return bytes(body)
            except httpx2.TimeoutException:
                raise self._no_answer(f"its answer was not complete after {self._seconds:.0f} s") from None
            except httpx2.HTTPError as error:
                problem = f"{type(error).__name__}: {error}"
        raise self._no_answer(problem)

    def clean(self, text: str) -> str:
        """Return what the server said without key, password and other secrets, control characters escaped."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        escaped = (one if one.isprintable() else one.encode("unicode_escape").decode() for one in redact(text))
        return "".join(escaped)

    def _shown(self, text: str) -> str:
        """Return the beginning of what the server said, for a message."""
        return self.clean(text)[:_SHOWN]

    def _unreachable(self, error: openai.APIConnectionError) -> StageError:
        cause = error.__cause__ or error
        return self._no_answer(f"{type(cause).__name__}: {cause}")

    def _no_answer(self, problem: str) -> StageError:
        """Return the error for a server that is unreachable, busy or slow."""
        return StageError(
            f"the server did not answer in {ATTEMPTS} attempts: {self._shown(problem)}",
            field=self._address_option,
            value=redact(self.url),
            remedy=f"Start the server, or {self._way_out}",
        )

    def _bad_answer(self, expected: str, answer: str) -> StageError:
        """Return the error for an answer that is not what was `expected`; the beginning of the answer is shown."""
        return StageError(
            f"the server's answer is not {expected}",
            field=self._address_option,
            value=self._shown(answer),
            remedy=f"Set {self._address_option} to the address of an OpenAI-compatible server",
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _secrets_of(url: httpx2.URL, key: str) -> list[str]:
    """Return the secrets that the server knows and may repeat, the longest first: the key, and a password."""
    _, _, password = url.userinfo.decode("ascii", "replace").partition(":")
    known = {key if key != _NO_KEY else "", password, unquote(password)}
    return sorted((secret for secret in known if len(secret) >= _SHORTEST_SECRET), key=len, reverse=True)
