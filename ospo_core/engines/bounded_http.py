"""An HTTP client for servers that nobody vouches for: an answer is bounded in time and in bytes, headers included.

Own code because httpx bounds only the time until the next bytes: an answer that drips in outlives every timeout.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx2
from openai import DefaultHttpxClient

from ospo_core.errors import StageError

LONGEST = 1 << 24
"""Bytes of an answer that are read at most; lists of all models of a large provider have about a million."""
LONGEST_REFUSAL = 1 << 16
"""Bytes that are read of an answer with an error status; its beginning is shown."""
_LEAST_WAIT = 0.001


def bounded_client(seconds: float) -> httpx2.Client:
    """Return a client with the defaults of openai's, each of whose answers is complete after `seconds` or an error.

    It raises httpx2.ReadTimeout (or WriteTimeout, ConnectTimeout) after that time. What is compressed is refused, since
    a few bytes may stand for gigabytes; none is asked for.
    """
    clock = _Clock()

    def begin(_request: httpx2.Request) -> None:
        clock.deadline = time.monotonic() + seconds

    client: httpx2.Client = DefaultHttpxClient(
        timeout=seconds,
        headers={"Accept-Encoding": "identity"},
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # none is kept, so none is sent
        event_hooks={"request": [begin], "response": [_bound_answer]},
    )
    for transport in (client._transport, *client._mounts.values()):  # with proxies of the environment
        pool: Any = getattr(transport, "_pool", None)
        if pool is not None:
            pool._network_backend = _Backend(pool._network_backend, clock)
    return client


def _bound_answer(response: httpx2.Response) -> None:
    """Bound the bytes of an answer, whose headers have been read; raises StageError if it is compressed.

    It is read as UTF-8: of the encodings that a server can name, some are none of texts.
    """
    response.encoding = "utf-8"
    encoding = response.headers.get("content-encoding", "identity")
    if encoding.strip().lower() not in ("identity", ""):
        raise StageError(
            "the server's answer is compressed, which was not asked for",
            field="Content-Encoding",
            value=encoding[:100],
            remedy="Turn compression off in the server, or in the proxy before it",
        )
    assert isinstance(response.stream, httpx2.SyncByteStream)
    response.stream = _Beginning(response.stream, LONGEST_REFUSAL if response.is_error else LONGEST)


class _Beginning(httpx2.SyncByteStream):
    """The first `most` bytes of a stream; whoever needs a whole answer compares its length with `most`."""

    def __init__(self, stream: httpx2.SyncByteStream, most: int) -> None:
        self._stream, self._most = stream, most

    def __iter__(self) -> Iterator[bytes]:
        left = self._most
        for chunk in self._stream:
            yield chunk[:left]
            left -= len(chunk)
            if left <= 0:
                return

    def close(self) -> None:
        self._stream.close()


class _Clock(threading.local):
    """The time at which the answer that this thread waits for must be complete."""

    deadline: float = math.inf

    def limit(self, timeout: float | None, late: type[httpx2.TimeoutException]) -> float:
        """Return how many seconds one step of at most `timeout` may take; raises `late` if there are none left."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise late("the answer was not complete in time")
        return max(_LEAST_WAIT, left if timeout is None else min(timeout, left))


class _Stream:
    """A connection; each read and write ends by the deadline of its thread."""

    def __init__(self, stream: Any, clock: _Clock) -> None:
        self._stream, self._clock = stream, clock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        found: bytes = self._stream.read(max_bytes, self._clock.limit(timeout, httpx2.ReadTimeout))
        return found

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._clock.limit(timeout, httpx2.WriteTimeout))

    def start_tls(self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None) -> _Stream:
        limit = self._clock.limit(timeout, httpx2.ConnectTimeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, limit), self._clock)

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Backend:
    """Opens connections as httpx does, and bounds what is read from them."""

    def __init__(self, backend: Any, clock: _Clock) -> None:
        self._backend, self._clock = backend, clock

    def connect_tcp(self, host: str, port: int, timeout: float | None = None, **options: Any) -> _Stream:
        limit = self._clock.limit(timeout, httpx2.ConnectTimeout)
        try:
            return _Stream(self._backend.connect_tcp(host, port, limit, **options), self._clock)
        except UnicodeError as error:  # of the system's look-up: a redirect may name anything
            raise httpx2.ConnectError(f"not the name of a host: {error}") from error

    def sleep(self, seconds: float) -> None:
        self._backend.sleep(seconds)
