"""The protocol's helpers and the choice of an engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from ospo_core.config.sections import EngineConfig
from ospo_core.engines import Request, base, build_engine
from ospo_core.errors import ConfigError, StageError


def test_text_is_cut_at_the_first_stop_string() -> None:
    assert base.cut_at_stop("one two three", ["three", "two"]) == ("one ", True)
    assert base.cut_at_stop("one", ["two"]) == ("one", False)
    assert base.cut_at_stop("one", []) == ("one", False)


def test_a_lost_answer_is_an_error() -> None:
    request = Request("a", 0, 0.0, 1)
    base.check_count([request], ["x"])
    with pytest.raises(StageError, match="1 answers to 2 requests"):
        base.check_count([request, request], ["x"])


def test_a_missing_package_is_named_with_its_install_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(base, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"package vllm is not installed.*pip install"):
        build_engine(EngineConfig(kind="vllm"), tmp_path)
