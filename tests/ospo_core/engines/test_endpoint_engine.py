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
from ospo_core.engines import Completion, Request
from ospo_core.engines.endpoint_engine import EndpointEngine
from ospo_core.engines.openai_server import ATTEMPTS
from ospo_core.errors import StageError
from ospo_core.prompts.families import FAMILIES, ParseError
from ospo_core.prompts.filters import NOT_TEXT

Reply = Callable[[dict[str, Any], int], tuple[int, Any]]


def echo(body: dict[str, Any], number: int) -> tuple[int, Any]:
    choice = {"text": f" {body['prompt']} {body['seed']} end rest", "finish_reason": "stop"}
    return 200, {"choices": [choice], "usage": {"completion_tokens": 7}}


class Server:
    """An OpenAI-compatible server that answers by a function of (body, number of the request).

    `models` is what it lists as `/v1/models`; None: it has no such list.
    """

    def __init__(self, reply: Reply, models: list[dict[str, Any]] | None = None) -> None:
        self.seen: list[tuple[str, dict[str, Any], str | None]] = []
        self.models = models
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                listed = {"object": "list", "data": server.models}
                self.send(*((404, "not found") if server.models is None else (200, listed)))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.seen.append((self.path, body, self.headers.get("Authorization")))
                self.send(*reply(body, len(server.seen)))

            def send(self, status: int, answer: Any) -> None:
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
def serving(
    reply: Reply, models: list[dict[str, Any]] | None = None, digest: str = "", **options: Any
) -> Iterator[tuple[Server, EndpointEngine]]:
    server = Server(reply, models)
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    config = EngineConfig(kind="endpoint", base_url=server.url, served_model="tiny", **options)
    try:
        with EndpointEngine(config, digest) as engine:
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
            named = EngineConfig(kind="endpoint", base_url=server.url, served_model="tiny")
            engine = EndpointEngine(named.model_copy(update={"base_url": address}))
            with engine, pytest.raises(StageError) as caught:
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


CHOICE = {"text": "a b", "finish_reason": "stop"}


@pytest.mark.parametrize(
    "answer",
    [
        *({"choices": [{**CHOICE, "text": text}]} for text in (None, 3, True, [], {})),
        *({"choices": [CHOICE], "usage": usage} for usage in ("x", 3, [], {"completion_tokens": -1})),
        *({"choices": [CHOICE], "usage": {"completion_tokens": tokens}} for tokens in ("many", 1e300, 2**40, [], {})),
        *({"choices": choices} for choices in ("abc", {}, [None], [[]], [3])),
        '{"choices": [{"text": "a"}], "usage": {"completion_tokens": NaN}}',
        '{"choices": [{"text": "a"}], "usage": {"completion_tokens": ' + "9" * 5000 + "}}",
        '{"choices": ' + "[" * 100_000 + "}",
    ],
)
def test_wrong_types_in_an_answer_are_one_error(answer: Any) -> None:
    with serving(lambda body, number: (200, answer)) as (_, engine):
        with pytest.raises(StageError, match=r"engine\.base_url: the server's answer is not an OpenAI com") as caught:
            engine.generate(requests(1))
        assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("usage", [None, {}, {"completion_tokens": None}, {"completion_tokens": 0}])
def test_a_server_that_counts_no_tokens_is_not_an_error(usage: Any) -> None:
    with serving(lambda body, number: (200, {"choices": [CHOICE], "usage": usage})) as (_, engine):
        assert engine.generate(requests(1))[0] == Completion("a b", 0, "stop")


@pytest.mark.parametrize("name", FAMILIES)
def test_half_a_character_in_an_answer_drops_that_answer_only(name: str) -> None:
    written = {"choices": [{"text": "a red \ud800 circle", "finish_reason": "stop"}]}
    with serving(lambda body, number: (200, written)) as (_, engine):
        text = engine.generate(requests(1))[0].text
    text.encode()
    with pytest.raises(ParseError) as caught:
        FAMILIES[name].parse_perturbation(text)
    assert caught.value.reason == NOT_TEXT


def test_a_closed_engine_says_so_and_addresses_may_end_with_v1() -> None:
    engine = EndpointEngine(EngineConfig(kind="endpoint", base_url="http://host:1/v1/", served_model="tiny"))
    plain = EndpointEngine(EngineConfig(kind="endpoint", base_url="http://host:1", served_model="tiny"))
    assert engine.url == plain.url == "http://host:1/v1"
    engine.close()
    with pytest.raises(StageError, match="closed"):
        engine.generate(requests(1))


DIGEST, OTHER = "ab" * 32, "cd" * 32


def vllm_lists(root: str, name: str = "tiny") -> list[dict[str, Any]]:
    """What `vllm serve` lists for one model."""
    return [{"id": name, "object": "model", "created": 1, "owned_by": "vllm", "root": root, "max_model_len": 256}]


def test_the_served_model_is_recognised_by_its_path(caplog: pytest.LogCaptureFixture) -> None:
    path = f".ospo/scratch/exports/{DIGEST}"
    with serving(echo, vllm_lists(path), DIGEST) as (_, engine):
        engine.generate(requests(2))
        assert engine.facts()["served_model"] == {"name": "tiny", "path": path, "server": "vllm", "verified": True}
    assert not caplog.records


def test_a_server_that_still_holds_another_model_is_refused_before_anything_is_generated() -> None:
    with serving(echo, vllm_lists(f"/exports/{OTHER}"), DIGEST) as (server, engine):
        with pytest.raises(StageError, match=f"another model.*{OTHER}.*vllm serve .*{DIGEST}"):
            engine.generate(requests(2))
        assert server.seen == []
        server.models = vllm_lists(f"/exports/{DIGEST}")
        assert len(engine.generate(requests(2))) == 2
        server.models = vllm_lists(f"/exports/{DIGEST}", name="else")
        with pytest.raises(StageError, match=r"does not serve this model.*It serves else"):
            engine.generate(requests(2))


def test_what_a_server_says_of_its_model_is_stored_without_the_key_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-key")
    listed = [{"id": "tiny", "root": "/x/sk-secret-key" + "y" * 9000, "owned_by": "sk-secret-key" * 1000}]
    with serving(echo, listed, DIGEST) as (_, engine):
        engine.generate(requests(1))
        facts = json.dumps(engine.facts())
    assert "sk-secret" not in facts and "***" in facts and len(facts) < 2000


@pytest.mark.parametrize("models", [None, vllm_lists("/models/current"), [{"id": "tiny"}]])
def test_a_server_that_does_not_say_is_a_warning_once_and_a_fact(models: Any, caplog: pytest.LogCaptureFixture) -> None:
    with serving(echo, models, DIGEST) as (_, engine):
        engine.generate(requests(2))
        engine.generate(requests(2))
        assert engine.facts()["served_model"]["verified"] is False
    assert sum(DIGEST[:12] in record.message for record in caplog.records) == 1


@pytest.mark.parametrize(
    ("option", "models", "sent"),
    [
        ("auto", vllm_lists("/x"), True),
        ("auto", [{"id": "tiny", "owned_by": "llamacpp"}], False),
        ("auto", None, False),
        ("on", None, True),
        ("off", vllm_lists("/x"), False),
    ],
)
def test_patterns_are_sent_to_vllm_or_on_request(option: str, models: Any, sent: bool) -> None:
    with serving(echo, models, structured_output=option) as (server, engine):
        engine.generate([Request("p", 1, 1.0, 9, top_p=0.9, regex="a+"), Request("q", 1, 1.0, 9)])
    bodies = {body["prompt"]: body for _, body, _ in server.seen}
    assert bodies["p"].get("structured_outputs") == ({"regex": "a+"} if sent else None)
    assert bodies["p"]["top_p"] == 0.9 and not {"top_p", "structured_outputs"} & set(bodies["q"])
