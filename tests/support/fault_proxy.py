"""A small HTTP proxy in front of a real S3 server that breaks some requests: errors, cut answers, resets, silence.

Requests are forwarded as they came, with their Host header, since signatures cover it. What is broken is chosen by a
seeded generator, or by a function of the test. Half of the broken requests do reach the server: then only the answer is
lost, which is the harder case for a client.
"""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

KINDS = ("500", "503", "cut", "reset", "hang")
_CODES = {"500": "InternalError", "503": "ServiceUnavailable"}
_HOP_BY_HOP = {"connection", "keep-alive", "expect", "transfer-encoding"}
_SERVER_TIMEOUT_S = 60


@dataclass(frozen=True)
class Fault:
    """What happens to one request: `kind` of KINDS, and whether the server gets it all the same."""

    kind: str
    reaches: bool


Choice = Callable[[str, str], Fault | None]
"""Which fault befalls a request, given its method and path; None is none. Called for one request at a time."""


@dataclass
class FaultProxy:
    """A running proxy: its address, how many requests came, and what was done to them, by kind."""

    endpoint_url: str
    choose: Choice
    hang_s: float
    requests: int = 0
    injected: Counter[str] = field(default_factory=Counter)
    answers_lost: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next_fault(self, method: str, path: str) -> Fault | None:
        with self.lock:
            self.requests += 1
            fault = self.choose(method, path)
            if fault is not None:
                self.injected[fault.kind] += 1
                self.answers_lost += fault.reaches
            return fault


def seeded(seed: int, share: float) -> Choice:
    """Return a choice that breaks `share` of all requests: first once in every way, later seldom by silence."""
    draw = random.Random(seed)
    first = draw.sample(KINDS, len(KINDS))

    def choose(method: str, path: str) -> Fault | None:
        if draw.random() >= share:
            return None
        kind = first.pop() if first else draw.choices(KINDS, weights=(10, 10, 10, 10, 1))[0]
        return Fault(kind, draw.random() < 0.5)

    return choose


@contextmanager
def fault_proxy(server: str, choose: Choice, hang_s: float = 3.0) -> Iterator[FaultProxy]:
    """Run a proxy of the S3 server at address `server`; a hanging request is closed without answer after `hang_s`."""
    target = urlsplit(server).netloc

    class Handler(_Handler):
        upstream = target

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    listener.block_on_close = False
    proxy = FaultProxy(f"http://127.0.0.1:{listener.server_address[1]}", choose, hang_s)
    Handler.proxy = proxy
    thread = threading.Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    """Takes one request, forwards it or not, and answers it or not."""

    protocol_version = "HTTP/1.1"
    upstream = ""
    proxy: FaultProxy

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:
            self.close_connection = True  # the client has given up waiting

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.proxy.next_fault(self.command, self.path)
        if fault is None:
            self._answer(*self._forward(body))
            return
        answer = self._forward(body) if fault.reaches or fault.kind == "cut" else None
        self.close_connection = True
        if fault.kind in _CODES:
            text = f"<Error><Code>{_CODES[fault.kind]}</Code><Message>injected</Message></Error>".encode()
            self._answer(int(fault.kind), [("Content-Type", "application/xml")], text)
        elif fault.kind == "cut" and answer is not None:
            self._answer(*answer, cut=True)
        elif fault.kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif fault.kind == "hang":
            threading.Event().wait(self.proxy.hang_s)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """Return the server's answer to this request."""
        connection = http.client.HTTPConnection(self.upstream, timeout=_SERVER_TIMEOUT_S)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _HOP_BY_HOP:
                    connection.putheader(name, value)
            connection.endheaders(body or None)
            response = connection.getresponse()
            headers = [(name, value) for name, value in response.getheaders() if name.lower() not in _HOP_BY_HOP]
            return response.status, headers, response.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, cut: bool = False) -> None:
        """Answer; an answer that is cut promises its whole length, and one without body ends in its headers."""
        if cut and not body:
            self.wfile.write(b"HTTP/1.1 200")
            return
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() != "content-length" or self.command == "HEAD":
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
