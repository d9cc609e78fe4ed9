"""A stand-in for an OpenAI-compatible server with a vision-language model: it speaks the protocol and sees nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[[dict[str, Any], int], tuple[int, Any]]
"""(body of the request, its number from 1) -> status, and the answer as JSON or as a text."""


def chat_answer(text: str = "Yes", logprobs: dict[str, float] | None = None) -> dict[str, Any]:
    """Return a chat completion of one token, with the log-probabilities of the most probable tokens if given."""
    choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "length"}
    if logprobs is not None:
        top = [{"token": token, "logprob": value, "bytes": None} for token, value in logprobs.items()]
        choice["logprobs"] = {"content": [{"token": text, "logprob": -0.1, "top_logprobs": top}], "refusal": None}
    return {"id": "1", "object": "chat.completion", "created": 1, "model": "eyes", "choices": [choice]}


class ChatServer:
    """The server; `seen` holds (path, body, Authorization) of every request."""

    def __init__(self, reply: Reply) -> None:
        self.seen: list[tuple[str, dict[str, Any], str | None]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.seen.append((self.path, body, self.headers.get("Authorization")))
                status, answer = reply(body, len(server.seen))
                data = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                with suppress(ConnectionError):  # a client may hang up on a long answer
                    self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"


@contextmanager
def chat_server(reply: Reply) -> Iterator[ChatServer]:
    """Serve `reply` on this machine while the block runs."""
    server = ChatServer(reply)
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
        thread.join()
