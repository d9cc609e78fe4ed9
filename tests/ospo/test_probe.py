"""`ospo probe`: a line per task, raw answers below, JSON, and a failure where a round would stop."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from tests.support import scripted_text
from tests.support.scripted_text import scripted_server

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with scripted_server() as address:
        yield address


@pytest.fixture
def ospo(run: Run, profile: str, server: str) -> Run:
    """Run the probe on a server whose model is made of rules."""
    engine = ["engine.kind=endpoint", f"engine.base_url={server}", "engine.served_model=text"]
    options = [word for option in engine for word in ("--set", option)]

    def probe(*arguments: str) -> tuple[int, str, str]:
        return run("probe", "--profile", profile, "--answers", "6", *options, *arguments)

    return probe


def test_every_task_is_a_line_and_failures_are_shown_raw(ospo: Run) -> None:
    code, out, err = ospo()
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["sub-category", "task", "answers", "parsed", "distinct", "valid"]
    assert lines[1].split()[:4] == ["color_2", "prompt", "6", "100%"]
    assert sum(line.startswith("spatial_2d ") for line in lines) == 6
    assert "drop: " in out and "changes_too_much" in out


def test_json_holds_everything(ospo: Run) -> None:
    code, out, _ = ospo("--json")
    found = json.loads(out)
    assert code == 0 and {one["sub_category"] for one in found} == {"color_2", "spatial_2d"}
    assert set(found[0]) >= {"task", "answers", "parsed", "distinct", "valid", "failures", "examples"}


def test_what_would_stop_a_round_ends_the_probe_with_an_error(ospo: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripted_text, "answer", lambda prompt, seed: "Sure,\nhere is a | prompt")
    code, out, err = ospo()
    assert code == 1
    assert "engine.min_parsed" in err and "color_2 prompt 0%" in err
    assert r"Sure,\nhere is a | prompt" in out
