"""A vision-language model behind an OpenAI-compatible server (`/v1/chat/completions`) as the judge of pictures.

It reads a picture as a base64 data URL and answers one question about it with one token; `p(yes)` and `p(no)` come from
the log-probabilities of that token. A server that gives none is taken at its word: 1 for the answer it wrote.
"""

from __future__ import annotations

import base64
import math
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

from openai import APIResponse, OpenAI
from pydantic import BaseModel, Field

from ospo_core.engines.openai_server import CONNECTIONS, OpenAIServer, Text
from ospo_core.evaluation.judges import NEITHER, WITHOUT_PROBABILITIES

KEY_VARIABLE = "OSPO_JUDGE_API_KEY"
"""Environment variable with the server's key; not that of the text engine, which may be another company's."""
TOP = 20
"""Most probable tokens asked for: the most that OpenAI and vLLM give by default."""
LONGEST_ANSWER = 1 << 20
"""Bytes of an answer that are read at most; one with 20 log-probabilities has about 3 000."""
SECONDS = 120.0
"""Seconds for one answer."""

Answer = tuple[float, float]


class _Token(BaseModel):
    token: Text
    logprob: float = Field(le=1e-3, allow_inf_nan=True)  # -inf is a probability of 0; a comparison refuses nan


class _Position(BaseModel):
    top_logprobs: list[_Token] = Field(default_factory=list)


class _Logprobs(BaseModel):
    content: list[_Position] | None = None


class _Message(BaseModel):
    content: Text | None = None


class _Choice(BaseModel):
    message: _Message
    logprobs: _Logprobs | None = None


class _Reply(BaseModel):
    choices: list[_Choice] = Field(min_length=1)


class EndpointJudge:
    """A client of the server; `counts` adds up the answers that were not what a judge should give."""

    def __init__(self, url: str, model: str) -> None:
        options = ("evaluation.judge_url", "evaluation.judge_model", "choose another evaluation.judge")
        self._server = OpenAIServer(url, model, KEY_VARIABLE, options, SECONDS)
        self.counts: Counter[str] = Counter()

    def answer(self, pictures: Sequence[bytes], questions: Sequence[Sequence[str]]) -> list[list[Answer]]:
        """Return `(p_yes, p_no)` for each PNG of `pictures` and each of its questions.

        Raises:
            StageError: the server does not answer, refuses a request, or its answer is not a chat completion.
        """
        asked = [(picture, question) for picture, some in zip(pictures, questions, strict=True) for question in some]
        with ThreadPoolExecutor(max_workers=CONNECTIONS) as pool:
            replies = iter(list(pool.map(lambda one: self._ask(*one), asked)))
        answers = []
        for some in questions:
            given = [next(replies) for _ in some]
            self.counts[WITHOUT_PROBABILITIES] += sum(not certain for _, certain in given)
            self.counts[NEITHER] += sum(not any(answer) for answer, _ in given)
            answers.append([answer for answer, _ in given])
        return answers

    def close(self) -> None:
        """Close the connections."""
        self._server.close()

    def _ask(self, picture: bytes, question: str) -> tuple[Answer, bool]:
        """Return the answer to one question, and whether it has probabilities."""
        image = f"data:image/png;base64,{base64.b64encode(picture).decode()}"

        def request(client: OpenAI) -> AbstractContextManager[APIResponse[Any]]:
            return client.chat.completions.with_streaming_response.create(
                model=self._server.model,
                messages=[
                    {
                        "role": "user",
                        "content": [
                            {"type": "image_url", "image_url": {"url": image}},
                            {"type": "text", "text": f"{question}\nAnswer with yes or no only."},
                        ],
                    }
                ],
                max_tokens=1,
                temperature=0.0,
                logprobs=True,
                top_logprobs=TOP,
            )

        choice = self._server.ask(request, _Reply, "an OpenAI chat completion", LONGEST_ANSWER).choices[0]
        position = choice.logprobs.content[0] if choice.logprobs and choice.logprobs.content else None
        if position is None or not position.top_logprobs:
            word = _word(choice.message.content or "")
            return (float(word == "yes"), float(word == "no")), False
        return (_probability(position, "yes"), _probability(position, "no")), True


def _probability(position: _Position, word: str) -> float:
    """Return the probability of a word: that of its most probable spelling (docs/method.md, section 3.1)."""
    chances = [min(1.0, math.exp(one.logprob)) for one in position.top_logprobs if _word(one.token) == word]
    return max(chances, default=0.0)


def _word(text: str) -> str:
    """Return the first word of an answer or a token in lower case, without the marks of a leading space."""
    words = text.lstrip("\N{LATIN CAPITAL LETTER G WITH DOT ABOVE}\N{LOWER ONE EIGHTH BLOCK} \n\t").split()
    return words[0].strip(".,!:;\"'*").casefold() if words else ""
