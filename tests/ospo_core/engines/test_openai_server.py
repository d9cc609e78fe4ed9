"""A server that nobody vouches for: bounds of time and bytes, odd addresses and keys, and what it repeats."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from ospo_core.engines.bounded_http import LONGEST, LONGEST_REFUSAL
from ospo_core.engines.openai_server import ATTEMPTS, OpenAIServer
from ospo_core.errors import ConfigError, StageError
from tests.support.raw_server import raw_server

KEY = "sk-abc0123456789"


class Anything(BaseModel):
    """Any object."""


def server(url: str, seconds: float = 30.0) -> OpenAIServer:
    options = ("engine.base_url", "engine.served_model", "choose another engine.kind")
    return OpenAIServer(url, "tiny", "OPENAI_API_KEY", options, seconds)


def refused(send: Callable[[socket.socket], None], head: bytes, seconds: float = 30.0) -> tuple[str, int]:
    """Return the message for a server that answers like this, and how many requests it got."""
    with raw_server(send, head) as (url, asked):
        client = server(url, seconds)
        with pytest.raises(StageError) as caught:
            client.ask(
                lambda api: api.completions.with_streaming_response.create(model="tiny", prompt="p"),
                Anything,
                "an OpenAI completion",
                1 << 20,
            )
        client.close()
        return str(caught.value), len(asked)


def head(*lines: str, status: str = "200 OK") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode()


def dripping(data: bytes, pause: float = 0.01) -> Callable[[socket.socket], None]:
    nothing = threading.Event()

    def send(connection: socket.socket) -> None:
        for _ in range(1000):
            connection.sendall(data)
            nothing.wait(pause)

    return send


def flooding(connection: socket.socket) -> None:
    for _ in range(4096):
        connection.sendall(b" " * 65536)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the client would have waited between its attempts, seconds; it does not wait."""
    waited = list[float]()
    monkeypatch.setattr("openai._base_client.time.sleep", waited.append)
    return waited


def test_a_body_that_drips_in_ends_at_the_deadline() -> None:
    begun = time.monotonic()
    message, asked = refused(dripping(b" "), head("Content-Length: 5000"), seconds=0.2)
    assert "not complete after" in message and asked == 1 and time.monotonic() - begun < 2


@pytest.mark.usefixtures("waits")
def test_headers_that_drip_in_end_at_the_deadline() -> None:
    begun = time.monotonic()
    message, asked = refused(dripping(b"X-A: 1\r\n"), b"HTTP/1.1 200 OK\r\n", seconds=0.1)
    assert "ReadTimeout" in message and asked == ATTEMPTS and time.monotonic() - begun < 5


@pytest.mark.usefixtures("waits")
def test_a_proxy_of_the_environment_is_used_and_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with raw_server(dripping(b"X-A: 1\r\n"), b"HTTP/1.1 200 OK\r\n") as (url, asked):
        monkeypatch.setenv("HTTP_PROXY", url)
        client = server("http://host.invalid", seconds=0.05)
        with pytest.raises(StageError, match="ReadTimeout"):
            client.models()
        client.close()
        assert len(asked) == ATTEMPTS


@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request"])
@pytest.mark.usefixtures("waits")
def test_a_flood_is_not_read_to_its_end(status: str) -> None:
    message, _ = refused(flooding, head(f"Content-Length: {1 << 40}", status=status))
    assert "at most" in message if status.startswith("200") else "refused a request with status 400" in message
    assert LONGEST_REFUSAL < LONGEST and len(message) < 1000


@pytest.mark.parametrize("body", [b"\x1f\x8bbroken", gzip.compress(b" " * 10_000_000)])
@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "gzip, gzip", "nonsense"])
@pytest.mark.parametrize("status", ["200 OK", "503 Busy"])
def test_a_compressed_answer_is_refused_unread(body: bytes, encoding: str, status: str) -> None:
    lines = (f"Content-Encoding: {encoding}", f"Content-Length: {len(body)}")
    message, asked = refused(lambda connection: connection.sendall(body), head(*lines, status=status))
    assert "Content-Encoding: the server's answer is compressed" in message and asked == 1


@pytest.mark.parametrize(
    "body",
    [b"", b"3", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}", b"\xff\xfe{}", b"<html>"],
)
def test_what_is_no_json_object_is_one_error(body: bytes) -> None:
    message, _ = refused(lambda connection: connection.sendall(body), head(f"Content-Length: {len(body)}"))
    assert "is not an OpenAI completion" in message and len(message) < 1000


@pytest.mark.parametrize(
    "charset", ["base64", "hex", "zlib", "rot13", "idna", "undefined", "punycode", "utf-16", "none"]
)
@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request", "503 Busy"])
@pytest.mark.usefixtures("waits")
def test_an_answer_is_read_as_utf8_whatever_encoding_it_names(charset: str, status: str) -> None:
    lines = (f"Content-Type: application/json; charset={charset}", "Content-Length: 5")
    message, _ = refused(lambda connection: connection.sendall(b"\xff[]ab"), head(*lines, status=status))
    assert "status" in message or "not an OpenAI completion (got '\ufffd[]ab')" in message


@pytest.mark.parametrize(
    "location",
    [
        "http://[::1",
        "http://host:99999999/",
        "http://" + "a" * 80,
        "http://a..b",
        "//",
        "",
        "/",
        "ftp://x",
        "file:///x",
    ],
)
@pytest.mark.usefixtures("waits")
def test_a_redirect_to_nowhere_is_one_error(location: str) -> None:
    sent = head(f"Location: {location}", "Content-Length: 0", status="307 Elsewhere")
    assert "engine.base_url: the server" in refused(lambda connection: None, sent)[0]


def test_no_cookie_is_kept() -> None:
    sent = b"HTTP/1.1 200 OK\r\nSet-Cookie: \xff=\xff\r\nSet-Cookie: a=b\r\nContent-Length: 2\r\n\r\n{}"
    with raw_server(lambda connection: None, sent) as (url, asked):
        client = server(url)
        for _ in range(2):
            assert client.models() == {}
        assert len(asked) == 2 and not client._client._client.cookies
        client.close()


@pytest.mark.parametrize(
    "address",
    [
        "http://[::1",
        "http://[nope]:1",
        "http://",
        "http:///v1",
        "ftp://host",
        "host:80",
        "localhost",
        "",
        "http://host:99999999",
        "http://host:port",
        "http://" + "a" * 70 + ".org",
        "http://a..b",
        "http://host/\n",
        "http://host\x00",
        "file:///etc/passwd",
    ],
)
def test_what_is_no_address_is_refused_before_anything_is_sent(address: str) -> None:
    with pytest.raises(ConfigError, match=r"engine\.base_url: not the address of a server .*http://HOST:PORT"):
        server(address)


@pytest.mark.parametrize("key", ["sk-secret\nX: 1", "sk-sécret", "sk\x00secret"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setattr("os.environ", {"OPENAI_API_KEY": key})
    with pytest.raises(ConfigError, match="OPENAI_API_KEY: the key cannot be sent") as caught:
        server("http://host:1")
    assert "cret" not in str(caught.value)


def test_control_characters_of_an_answer_are_shown_as_text() -> None:
    body = b"\x1b[2J\r\nno such model\x00"
    sent = head(f"Content-Length: {len(body)}", status="404 Missing")
    message, _ = refused(lambda connection: connection.sendall(body), sent)
    assert r"\x1b[2J\r\nno such model\x00" in message


def listing(answer: Any, monkeypatch: pytest.MonkeyPatch, key: str = KEY) -> tuple[OpenAIServer, dict[str, Any]]:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    with raw_server(lambda connection: connection.sendall(body), head(f"Content-Length: {len(body)}")) as (url, _):
        client = server(url)
        return client, client.models()


NO_LISTS = [
    *(3, None, [], {"data": None}, {"data": {"id": "tiny"}}, {"data": ["tiny"]}),
    *({"data": [{"id": None}]}, {"data": [{"id": {}}]}, {"data": [{"id": "tiny", "root": 3}]}),
    *(b"[" * 99_999, b"\xff", b" " * (LONGEST + 5)),
]


@pytest.mark.parametrize("answer", NO_LISTS, ids=range(len(NO_LISTS)))
def test_a_list_of_models_that_is_none_says_nothing(answer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert listing(answer, monkeypatch)[1] == {}


@pytest.mark.parametrize("before", [0, 250, 290, 299])
@pytest.mark.parametrize("status", ["401 No", "200 OK"])
def test_no_part_of_a_key_or_password_that_comes_back_is_shown(
    monkeypatch: pytest.MonkeyPatch, before: int, status: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k3y!")
    body = ("." * before + "k3y! wrong, nor is pass%2Fword or pass/word").encode()
    sent = head(f"Content-Length: {len(body)}", status=status)
    with raw_server(lambda connection: connection.sendall(body), sent) as (url, _):
        client = server(url.replace("http://", "http://me:pass%2Fword@"))
        with pytest.raises(StageError) as caught:
            client.ask(
                lambda api: api.completions.with_streaming_response.create(model="tiny", prompt="p"),
                Anything,
                "an OpenAI completion",
                1 << 20,
            )
        client.close()
    message = str(caught.value)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__  # a log of the error shows no more
    assert not any(part in message for part in ("k3", "3y!", "pass%", "pass/", "word"))
    assert "***" in message or before >= 290
