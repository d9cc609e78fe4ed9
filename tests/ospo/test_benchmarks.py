"""`ospo benchmark`: mistakes are one message with exit code 2 before a server is started."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("Prefect was started")

    monkeypatch.setattr("ospo.benchmarks.embedded_prefect", refuse)


@pytest.mark.usefixtures("no_server")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["geneval"], "benchmark.prompts: is needed for this benchmark (got 'geneval')"),
        (["geneval", "--prompts", "none.jsonl"], "benchmark.prompts: cannot be read: No such file or directory"),
        (["none.jsonl"], "benchmark.name: is neither a benchmark nor a file of prompts"),
        (["t2i-compbench", "--prompts", "."], "there is no such file"),
        (["embedded:shapes", "--model", "x", "--against", "x"], "--against: is the model itself"),
        (["embedded:shapes", "--out", "full"], "--out: is not empty"),
        (["embedded:shapes", "--set", "benchmark.samples=0"], "benchmark.samples"),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_mistakes_are_one_message(
    run: Run, profile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("x", encoding="utf-8")
    code, out, err = run("benchmark", *arguments, "--profile", profile)
    assert (code, out) == (2, "") and words in err and "Traceback" not in err
