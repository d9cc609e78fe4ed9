"""Fixtures of the command line's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ospo.app import run as run_command
from tests.support.fake_stages import NumbersStage, two_stages_only
from tests.support.rounds import model_files, small_round

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what the environment says of terminals, such as TERM=dumb: it changes tables and progress bars."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process; give exit code, standard output and standard error."""

    def ospo(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            run_command(arguments)
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return ospo


@pytest.fixture
def profile(tmp_path: Path) -> str:
    """A profile of a small round, with a model folder that looks right."""
    model_files(tmp_path / "model")
    path = tmp_path / "small.yaml"
    path.write_text(small_round(tmp_path).model_dump_json(), encoding="utf-8")
    return str(path)


@pytest.fixture
def numbers() -> Iterator[NumbersStage]:
    """Let a round consist of two quick stages."""
    with two_stages_only() as stage:
        yield stage
