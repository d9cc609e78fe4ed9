"""At any time one engine or one model is in use, started once for as long as it is asked for."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from ospo_core.config.sections import EngineConfig, ModelConfig
from ospo_core.stages import resources as module
from ospo_core.stages.resources import Resources, import_text_engine, shared_resources
from tests.support.scripted_text import ScriptedEngine

ENDPOINT = EngineConfig(kind="endpoint", base_url="http://localhost", served_model="m")


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[ScriptedEngine]:
    started: list[ScriptedEngine] = []

    def build(config: EngineConfig, folder: Path, digest: str) -> ScriptedEngine:
        started.append(ScriptedEngine())
        return started[-1]

    monkeypatch.setattr(module, "build_engine", build)
    return started


def test_engine_is_started_once_until_released(tmp_path: Path, engines: list[ScriptedEngine]) -> None:
    held = Resources()
    first = held.text_engine(ENDPOINT, tmp_path, "a", tmp_path)
    assert held.text_engine(ENDPOINT, tmp_path, "a", tmp_path) is first
    assert held.starts == {"text": 1}
    held.release()
    held.release()
    assert engines[0].closed
    assert held.text_engine(ENDPOINT, tmp_path, "a", tmp_path) is not first


def test_another_model_closes_the_first(tmp_path: Path, engines: list[ScriptedEngine]) -> None:
    held = Resources()
    held.text_engine(ENDPOINT, tmp_path, "a", tmp_path)
    held.text_engine(ENDPOINT, tmp_path, "b", tmp_path)
    assert [engine.closed for engine in engines] == [True, False]


def test_loading_a_model_closes_the_engine(
    tmp_path: Path, engines: list[ScriptedEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ospo_core.models.loading.load_model", lambda folder, config: f"loaded {folder.name}")
    held = Resources()
    held.text_engine(ENDPOINT, tmp_path, "a", tmp_path)
    assert held.image_model(ModelConfig(), tmp_path / "m", "a") == f"loaded {'m'}"
    assert engines[0].closed and held.starts == {"text": 1, "image": 1}


def test_failed_start_leaves_nothing_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(config: EngineConfig, folder: Path, digest: str) -> ScriptedEngine:
        raise MemoryError

    monkeypatch.setattr(module, "build_engine", fail)
    held = Resources()
    with pytest.raises(MemoryError):
        held.text_engine(ENDPOINT, tmp_path, "a", tmp_path)
    assert not held.starts


def test_process_has_one_owner() -> None:
    assert shared_resources() is shared_resources()


def test_nothing_is_looked_through_where_nothing_was_held(tmp_path: Path, engines: list[ScriptedEngine]) -> None:
    collections: list[str] = []

    def count(phase: str, info: dict[str, int]) -> None:
        collections.extend([phase] if info["generation"] == 2 and phase == "stop" else [])

    held = Resources()
    held.text_engine(ENDPOINT, tmp_path, "a", tmp_path)
    gc.callbacks.append(count)
    try:
        held.release()
        assert len(collections) == 1 and gc.get_freeze_count() > 0
        held.release()
        assert len(collections) == 1
    finally:
        gc.callbacks.remove(count)
        gc.unfreeze()


def test_an_endpoint_needs_no_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    imported: list[str] = []
    monkeypatch.setattr(module, "import_module", imported.append)
    import_text_engine(ENDPOINT)
    assert imported == []
    import_text_engine(EngineConfig(kind="transformers"))
    assert imported == ["ospo_core.models.export"]
