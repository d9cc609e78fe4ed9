"""The endpoint engine against a real HTTP server on this machine: bodies, order, retries, refusals."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ospo_core.config.sections import EngineConfig
from ospo_core.engines import Request
from ospo_core.engines.endpoint_engine import EndpointEngine
from ospo_core.engines.openai_server import ATTEMPTS
from ospo_core.errors import StageError

Reply = Callable[[dict[str, Any], int], tuple[int, Any]]


def echo(body: dict[str, Any], number: int) -> tuple[int, Any]:
    choice = {"text": f" {body['prompt']} {body['seed']} end rest", "finish_reason": "stop"}
    return 200, {"choices": [choice], "usage": {"completion_tokens": 7}}


class Server:
    """An OpenAI-compatible server that answers by a function of (body, number of the request)."""

    def __init__(self, reply: Reply) -> None:
        self.seen: list[tuple[str, dict[str, Any], str | None]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.seen.append((self.path, body, self.headers.get("Authorization")))
                status, answer = reply(body, len(server.seen))
                text = answer if isinstance(answer, str) else json.dumps(answer)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"


@contextmanager
def serving(reply: Reply) -> Iterator[tuple[Server, EndpointEngine]]:
    server = Server(reply)
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    config = EngineConfig(kind="endpoint", base_url=server.url, served_model="tiny")
    try:
        with EndpointEngine(config) as engine:
            yield server, engine
    finally:
        server.http.shutdown()
        server.http.server_close()
        thread.join()


def requests(count: int) -> list[Request]:
    return [Request(f"p{number}", number, 0.5, 9, stop=("end",)) for number in range(count)]


def test_answers_come_back_in_order_and_cut_at_the_stop_string() -> None:
    with serving(echo) as (server, engine):
        done = engine.generate(requests(20))
    assert [answer.text for answer in done] == [f"p{number} {number}" for number in range(20)]
    assert {(answer.tokens, answer.finish) for answer in done} == {(7, "stop")}
    path, body, _ = next(seen for seen in server.seen if seen[1]["prompt"] == "p3")
    assert path == "/v1/completions"
    assert body == {"model": "tiny", "prompt": "p3", "seed": 3, "temperature": 0.5, "max_tokens": 9, "stop": ["end"]}


def test_a_length_limit_is_reported() -> None:
    answer = {"choices": [{"text": "cut", "finish_reason": "length"}]}
    with serving(lambda body, number: (200, answer)) as (_, engine):
        assert engine.generate(requests(1))[0].finish == "length"


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "word")
    with serving(echo) as (server, engine):
        engine.generate(requests(1))
    assert server.seen[0][2] == "Bearer word"


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the client would have waited between its attempts, seconds; it does not wait."""
    waited = list[float]()
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


def test_a_busy_server_is_asked_again_with_growing_waits(waits: list[float]) -> None:
    with serving(lambda body, number: (503, "busy") if number < 3 else echo(body, number)) as (_, engine):
        assert engine.generate(requests(1))[0].text == "p0 0"
    assert waits == [pytest.approx(0.5, rel=0.25), pytest.approx(1.0, rel=0.25)]


def test_a_server_that_stays_busy_or_away_is_named(waits: list[float]) -> None:
    with serving(lambda body, number: (500, "broken")) as (server, engine):
        with pytest.raises(StageError, match=f"{ATTEMPTS} attempts: status 500"):
            engine.generate(requests(1))
        assert len(server.seen) == ATTEMPTS == len(waits) + 1
    away = EngineConfig(kind="endpoint", base_url=server.url, served_model="tiny")
    with EndpointEngine(away) as engine, pytest.raises(StageError, match="ConnectError"):
        engine.generate(requests(1))


@pytest.mark.usefixtures("waits")
def test_no_message_and_no_log_shows_the_key_or_a_password(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-key")
    messages = []
    for status in (401, 500):
        reply = (status, "Incorrect API key provided: sk-secret-key")
        with serving(lambda body, number, reply=reply: reply) as (server, _):
            address = server.url.replace("http://", "http://me:hush@")
            named = EngineConfig(kind="endpoint", base_url=address, served_model="tiny")
            with EndpointEngine(named) as engine, pytest.raises(StageError) as caught:
                engine.generate(requests(1))
        messages.append(str(caught.value))
    assert "***" in messages[0] and "***@" in messages[1]
    for secret in ("sk-secret-key", "hush"):
        assert secret not in "".join(messages) + caplog.text


def test_a_refusal_is_not_repeated_and_shows_the_servers_words() -> None:
    with serving(lambda body, number: (404, "no model tiny")) as (server, engine):
        with pytest.raises(StageError, match=r"status 404: no model tiny"):
            engine.generate(requests(1))
        assert len(server.seen) == 1


@pytest.mark.parametrize("answer", ["not json", {"choices": []}, {"other": 1}])
def test_another_kind_of_server_is_recognised(answer: Any) -> None:
    with serving(lambda body, number: (200, answer)) as (_, engine), pytest.raises(StageError, match="OpenAI"):
        engine.generate(requests(1))


def test_a_closed_engine_says_so_and_addresses_may_end_with_v1() -> None:
    engine = EndpointEngine(EngineConfig(kind="endpoint", base_url="http://host:1/v1/", served_model="tiny"))
    plain = EndpointEngine(EngineConfig(kind="endpoint", base_url="http://host:1", served_model="tiny"))
    assert engine.url == plain.url == "http://host:1/v1"
    engine.close()
    with pytest.raises(StageError, match="closed"):
        engine.generate(requests(1))
