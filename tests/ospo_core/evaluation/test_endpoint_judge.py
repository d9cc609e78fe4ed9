"""The judge behind a server, against a stand-in that speaks the protocol: what it is sent, what its answers mean."""

from __future__ import annotations

import base64
import logging
import math
import socket
import time
from typing import Any

import pytest

from ospo_core.engines.openai_server import ATTEMPTS, READS
from ospo_core.errors import StageError
from ospo_core.evaluation import endpoint_judge
from ospo_core.evaluation.endpoint_judge import KEY_VARIABLE, LONGEST_ANSWER, TOP, EndpointJudge
from ospo_core.evaluation.judges import NEITHER, WITHOUT_PROBABILITIES
from tests.support.chat_server import Reply, chat_answer, chat_server
from tests.support.raw_server import raw_server


def ask(reply: Reply, pictures: int = 1, questions: int = 1) -> tuple[list[list[tuple[float, float]]], EndpointJudge]:
    with chat_server(reply) as server:
        judge = EndpointJudge(server.url, "eyes")
        try:
            asked = [[f"Is there {picture} {number}?" for number in range(questions)] for picture in range(pictures)]
            return judge.answer([f"png {picture}".encode() for picture in range(pictures)], asked), judge
        finally:
            judge.close()


def answer(logprobs: dict[str, float] | None, text: str = "Yes") -> tuple[float, float]:
    given, _ = ask(lambda body, number: (200, chat_answer(text, logprobs)))
    return given[0][0]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the client would have waited between its attempts, seconds; it does not wait."""
    waited = list[float]()
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


def test_a_picture_is_sent_as_data_url_with_one_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "judge-key")
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-another-server")
    with chat_server(lambda body, number: (200, chat_answer("Yes", {"Yes": -0.1}))) as server:
        EndpointJudge(f"{server.url}/v1/", "eyes").answer([b"png"], [["Is there a cat?"]])
    ((path, body, key),) = server.seen
    (message,) = body.pop("messages")
    assert path == "/v1/chat/completions" and key == "Bearer judge-key"
    assert body == {"model": "eyes", "max_tokens": 1, "temperature": 0.0, "logprobs": True, "top_logprobs": TOP}
    image, text = message["content"]
    assert image["image_url"]["url"] == f"data:image/png;base64,{base64.b64encode(b'png').decode()}"
    assert text["text"].startswith("Is there a cat?\n")


def test_probabilities_are_the_largest_over_the_spellings() -> None:
    found = answer({" Yes": math.log(0.5), "yes": math.log(0.2), "No": math.log(0.1), "\u2581no": math.log(0.15)})
    assert found == (pytest.approx(0.5), pytest.approx(0.15))
    assert answer({"yes": math.log(0.9), "Not": math.log(0.1)}) == (pytest.approx(0.9), 0.0)
    assert answer({"YES": 0.0005, "no": -9999.0}) == (1.0, 0.0)


def test_answers_come_back_by_picture_and_question() -> None:
    def reply(body: dict[str, Any], number: int) -> tuple[int, Any]:
        _, picture, last = body["messages"][0]["content"][1]["text"].split("?")[0].rsplit(" ", 2)
        return 200, chat_answer("Yes", {"Yes": -float(picture) - float(last) / 10})

    given, judge = ask(reply, pictures=4, questions=3)
    assert given == [[(pytest.approx(math.exp(-p - q / 10)), 0.0) for q in range(3)] for p in range(4)]
    assert not +judge.counts


def test_a_server_without_probabilities_is_taken_at_its_word_and_counted() -> None:
    words = [" Yes.", "no", "Perhaps"]
    given, judge = ask(lambda body, number: (200, chat_answer(words[number - 1])), pictures=3)
    assert sorted(answers[0] for answers in given) == [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0)]
    assert judge.counts == {WITHOUT_PROBABILITIES: 3, NEITHER: 1}


def test_neither_yes_nor_no_is_counted() -> None:
    given, judge = ask(lambda body, number: (200, chat_answer("A", {"A": -0.1})))
    assert given == [[(0.0, 0.0)]] and judge.counts[NEITHER] == 1


NAN = '{"choices": [{"message": {}, "logprobs": {"content": [{"top_logprobs": [{"token": "yes", "logprob": NaN}]}]}}]}'


@pytest.mark.parametrize(
    "reply",
    [
        "not json",
        {"choices": []},
        {"choices": [{"text": "yes"}]},
        {"choices": [{"message": {"content": 3}}]},
        {"choices": [{"message": {"content": None}, "logprobs": {"content": [{"top_logprobs": [{"token": 1}]}]}}]},
        "[" * 100_000,
        '{"choices": ' + "9" * 5000 + "}",
        chat_answer("Yes", {"Yes": 0.7}),
        NAN,
        ["yes"],
    ],
)
def test_malformed_answers_are_refused(reply: Any) -> None:
    with pytest.raises(StageError, match=r"judge_url: the server's answer is not an OpenAI chat completion"):
        ask(lambda body, number: (200, reply))


def test_half_a_character_among_the_tokens_is_no_error() -> None:
    """Tokens may end within a character, and some servers spell the half as a lone surrogate."""
    assert answer({"\ud83d": -0.5, "yes": math.log(0.5)}) == (pytest.approx(0.5), 0.0)


def test_an_endless_answer_is_not_read_to_its_end() -> None:
    with pytest.raises(StageError, match=f"at most {LONGEST_ANSWER} bytes"):
        ask(lambda body, number: (200, " " * (2 * LONGEST_ANSWER)))


@pytest.mark.usefixtures("waits")
def test_a_busy_server_is_asked_again_and_a_refusal_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    given, _ = ask(lambda body, number: (503, "busy") if number < 3 else (200, chat_answer("No")))
    assert given == [[(0.0, 1.0)]]
    with chat_server(lambda body, number: (400, "no picture, please")) as server:
        with pytest.raises(StageError, match=r"judge_model: .*status 400: no picture, please"):
            EndpointJudge(server.url, "eyes").answer([b"png"], [["?"]])
        assert len(server.seen) == 1
    with pytest.raises(StageError, match=f"{ATTEMPTS} attempts: ConnectError"):
        EndpointJudge(server.url, "eyes").answer([b"png"], [["?"]])


def test_a_torn_answer_is_asked_for_again() -> None:
    with raw_server(lambda connection: connection.sendall(b'{"choices"')) as (url, asked):
        with pytest.raises(StageError, match="RemoteProtocolError"):
            EndpointJudge(url, "eyes").answer([b"png"], [["?"]])
        assert len(asked) == READS


def test_an_answer_that_only_drips_in_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    def drip(connection: socket.socket) -> None:
        for _ in range(40):
            connection.sendall(b" ")
            time.sleep(0.05)

    monkeypatch.setattr(endpoint_judge, "SECONDS", 0.3)
    with raw_server(drip) as (url, asked):
        with pytest.raises(StageError, match="not complete after"):
            EndpointJudge(url, "eyes").answer([b"png"], [["?"]])
        assert len(asked) == 1


@pytest.mark.usefixtures("waits")
def test_no_message_and_no_log_shows_the_key(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setenv(KEY_VARIABLE, "sk-secret-key")
    messages = []
    for status in (401, 500, 200):
        with pytest.raises(StageError) as caught:
            ask(lambda body, number, status=status: (status, "Incorrect key: sk-secret-key"))
        messages.append(str(caught.value))
    assert "***" in messages[0] and "***" in messages[2]
    assert "sk-secret-key" not in "".join(messages) + caplog.text
