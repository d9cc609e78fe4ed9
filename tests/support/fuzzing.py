"""The areas that are fuzzed, and the one thing that must hold for every input of every area.

A hostile input gives a value, or an `OspoError` with one message: exit code 1 or 2, a full stop at its end, no secret.
Never another exception, never a file outside the storage and the scratch folder, never more than a few seconds.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import chdir, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import strategies as st

from ospo_core.errors import OspoError
from tests.support.fuzz_inputs import SECRET

SECONDS = 10.0
"""For one input; a choice, generous since machines that run tests are busy."""


class Broken(AssertionError):
    """An input that was not answered as promised."""


class Area(ABC):
    """A border where input comes in, in a folder of its own that an attempt may not leave.

    `root / "inside"` is for storage and scratch; whatever else appears below `root` is a file in a wrong place.
    """

    name: ClassVar[str]
    allowed: ClassVar[tuple[str, ...]] = ("inside",)

    def __init__(self, root: Path) -> None:
        self.root = root
        self.inside = root / "inside"
        self.inside.mkdir(parents=True, exist_ok=True)

    @abstractmethod
    def inputs(self) -> st.SearchStrategy[Any]:
        """Return what is tried."""

    @abstractmethod
    def attempt(self, given: Any) -> None:
        """Use one input as the project does; raises OspoError where it is refused."""

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Hold what all attempts share, such as a server; files with relative names go to `root`."""
        with chdir(self.root):
            yield

    def check(self, given: Any) -> None:
        """Try one input; raises Broken, or what the project should not have raised."""
        before, begun = self._outside(), time.monotonic()
        with suppress(OspoError):
            try:
                self.attempt(given)
            except OspoError as error:
                check_message(str(error), error.exit_code)
                raise
        took = time.monotonic() - begun
        if took > SECONDS:
            raise Broken(f"took {took:.1f} s")
        if appeared := self._outside() - before:
            raise Broken(f"wrote outside the root and the scratch folder: {sorted(appeared)}")

    def _outside(self) -> set[str]:
        """Return what lies beside the folders in which an attempt may write."""
        return {one.name for one in self.root.iterdir() if one.name not in self.allowed}


def check_message(message: str, code: int) -> None:
    """Raise Broken unless a message and its exit code are as promised."""
    if code not in (1, 2):
        raise Broken(f"exit code {code}: {message}")
    if not message.strip() or not message.rstrip().endswith("."):
        raise Broken(f"no sentence: {message!r}")
    if SECRET in message:
        raise Broken(f"shows a secret: {message!r}")
    if "Traceback" in message or any("\ud800" <= one <= "\udfff" for one in message):
        raise Broken(f"not for people: {message!r}")
