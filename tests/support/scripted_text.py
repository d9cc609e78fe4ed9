"""A text model made of rules: it answers the instructions of the shapes family, the same for the same seed."""

from __future__ import annotations

import json
import random
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ospo_core.engines.base import Completion, Request

COLORS = ("red", "blue", "green", "yellow")
SHAPES = ("circle", "square", "triangle", "star")
_INSTRUCTION = re.compile(r"<\|User\|> : (?P<text>.*) <\|Assistant\|> :$")


def answer(prompt: str, seed: int) -> str:
    """Return the answer to one chat text."""
    found = _INSTRUCTION.match(prompt)
    assert found, prompt
    text, draw = found["text"], random.Random(seed)
    if text.startswith("write a prompt about"):
        return _written(draw)
    subject = text.partition(" : ")[2].removesuffix(" .")
    if text.startswith("place both"):
        return subject
    if text.startswith("ask about"):
        return f"is there {subject} ?"
    return _changed(subject, draw)


def _written(draw: random.Random) -> str:
    first, second = (f"{draw.choice(COLORS)} {draw.choice(SHAPES)}" for _ in range(2))
    return f"a {first} and a {second} | {first} , {second} | none"


def _changed(prompt: str, draw: random.Random) -> str:
    words = prompt.split()
    place = draw.choice([index for index, word in enumerate(words) if word in COLORS])
    words[place] = draw.choice([color for color in COLORS if color != words[place]])
    return " ".join(words)


class ScriptedEngine:
    """The rules as a text engine; `calls` counts requests, `before` is called with each batch."""

    def __init__(self, before: Callable[[Sequence[Request]], None] = lambda requests: None) -> None:
        self.calls, self.closed, self._before = 0, False, before

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        self._before(requests)
        self.calls += len(requests)
        texts = [answer(request.prompt, request.seed) for request in requests]
        return [Completion(text=text, tokens=len(text.split()), finish="stop") for text in texts]

    def facts(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> ScriptedEngine:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@contextmanager
def scripted_server(before: Callable[[str], None] = lambda prompt: None) -> Iterator[str]:
    """Serve the rules as an OpenAI-compatible completions endpoint on this machine; yield its address.

    `before` is called with each prompt, in a thread of its own; its request waits for it.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            before(body["prompt"])
            text = answer(body["prompt"], body["seed"])
            choice = {"text": text, "finish_reason": "stop"}
            data = json.dumps({"choices": [choice], "usage": {"completion_tokens": len(text.split())}}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            with suppress(ConnectionError):  # whoever asked may have been killed meanwhile
                self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
