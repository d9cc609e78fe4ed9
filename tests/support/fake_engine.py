"""An engine that answers from a function, for tests of the text stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ospo_core.engines.base import Completion, Finish, Request, TextEngine

Answer = Callable[[Request], str]


class FakeEngine(TextEngine):
    """Answers each request by a pure function of it; remembers the requests of every call."""

    def __init__(self, answer: Answer, finish: Callable[[Request], Finish] = lambda request: "stop") -> None:
        self.answer, self.finish = answer, finish
        self.calls: list[list[Request]] = []

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        self.calls.append(list(requests))
        return [Completion(self.answer(request), 5, self.finish(request)) for request in requests]

    def close(self) -> None:
        """Nothing to give back."""


def instruction_of(request: Request) -> str:
    """The instruction inside a chat text of the shapes family."""
    return request.prompt.removeprefix("<|User|> : ").removesuffix(" <|Assistant|> :")
