"""The pre-flight check does everything once for real, says what it saw, and lets no failure hide another."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ospo_core.artifacts.model_digest import model_digest
from ospo_core.artifacts.storage import Storage
from ospo_core.config import load_profile
from ospo_core.config.sections import EngineConfig
from ospo_core.engines import TextEngine
from ospo_core.errors import ModelError, StageError
from ospo_core.rounds import Round, preflight
from ospo_core.rounds.preflight import CHECKS, Finding, is_due
from ospo_core.schema import StageName
from ospo_core.stages.model_ref import model_folder, starting_model
from ospo_core.stages.resources import Resources
from tests.support.chat_server import chat_answer, chat_server


def smoke(root: Path, *options: str) -> Round:
    engine = ("engine.kind=transformers", "model.device=cpu")
    places = (f"storage.root={root}/runs", f"storage.scratch={root}/scratch")
    config = load_profile("smoke", [*places, *engine, *options])
    storage = Storage(config.storage.root)
    return Round(config, storage, starting_model(config, storage), resources=Resources())


def findings(round: Round) -> dict[str, Finding]:
    try:
        return {found.check: found for found in preflight.preflight(round)}
    finally:
        round.resources.release()


def test_everything_is_tried_once_and_nothing_of_the_round_is_written(tmp_path: Path) -> None:
    round = smoke(tmp_path)
    found = findings(round)
    assert list(found) == list(CHECKS) and [one.error for one in found.values()] == [None] * len(CHECKS)
    assert "torch" in found["packages"].detail and "CPU" in found["device"].detail
    assert "64 x 64 from 16 tokens" in found["model"].detail and preflight.QUESTION in found["model"].detail
    assert f"{round.config.training.batch_size} pairs" in found["training"].detail
    assert "questions" in found["text"].detail
    assert round.resources.starts == {"image": 1, "text": 1}, "sampling and training share one model"
    assert not any(round.storage.list(name.value) for name in StageName)


def test_a_failed_check_is_named_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(round: Round) -> str:
        raise TypeError("answering needs another version")

    monkeypatch.setitem(CHECKS, "model", broken)
    monkeypatch.setitem(CHECKS, "training", preflight.check_device)
    monkeypatch.setitem(CHECKS, "text", preflight.check_packages)
    round = smoke(tmp_path, "evaluation.prompts=/nowhere.jsonl", "engine.kind=vllm")
    found = findings(round)
    failed = {name: one.detail for name, one in found.items() if one.error is not None}
    assert set(failed) == {"held-out prompts", "judge", "model"}
    assert "/nowhere.jsonl" in failed["held-out prompts"]
    assert failed["model"] == "TypeError: answering needs another version"


def test_a_judge_behind_a_server_is_asked_before_anything_is_spent(tmp_path: Path) -> None:
    assert preflight.check_judge(smoke(tmp_path)).startswith("start ")
    with chat_server(lambda body, number: (200, chat_answer("No"))) as server:
        there = ("evaluation.judge=endpoint", f"evaluation.judge_url={server.url}", "evaluation.judge_model=eyes")
        assert preflight.check_judge(smoke(tmp_path, *there)).startswith("eyes; ")
    with chat_server(lambda body, number: (404, "no such model")) as server:
        there = ("evaluation.judge=endpoint", f"evaluation.judge_url={server.url}", "evaluation.judge_model=eyes")
        with pytest.raises(StageError, match="no such model"):
            preflight.check_judge(smoke(tmp_path, *there))


def test_what_cannot_work_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    round = smoke(tmp_path, "prompts.max_tokens=1")
    with pytest.raises(StageError, match="truncated") as raised:
        preflight.check_text(round)
    round.resources.release()
    assert "model.family" in str(raised.value)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 1})())
    with pytest.raises(Exception, match=r"storage\.scratch.*about .* GB"):
        preflight.check_storage(round)
    with pytest.raises(ModelError):
        smoke(tmp_path, "model.path=/nowhere")


def test_a_new_round_on_a_gpu_is_checked_first(tmp_path: Path) -> None:
    assert not is_due(smoke(tmp_path)), "auto: there is no GPU"
    round = smoke(tmp_path, "execution.preflight=true")
    assert is_due(round)
    first = round.bind(StageName.PROMPTS, {})
    round.storage.write(f"{first.prefix}/part-00000.json", b"{}")
    assert not is_due(round), "the round has begun"
    alone = (f"training.imported_pairs={'ab' * 32}", "training.own_pairs=false")
    assert is_due(smoke(tmp_path, "execution.preflight=true", *alone)), "its first stage is the training"


def test_the_models_that_write_and_judge_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, roles = smoke(tmp_path), []
    for role in ("writer", "judge"):  # the same weights in a folder with another digest
        copy = shutil.copytree(model_folder(plain.model, plain.storage, tmp_path), tmp_path / role)
        (copy / "notes.json").write_text(f'"{role}"', encoding="utf-8")
        roles.append(f"model.{role}={copy}")
    named, written = smoke(tmp_path, *roles), list[str]()
    start = Resources.text_engine

    def noting(self: Resources, config: EngineConfig, folder: Path, digest: str, scratch: Path) -> TextEngine:
        written.append(digest)
        return start(self, config, folder, digest, scratch)

    monkeypatch.setattr(Resources, "text_engine", noting)
    details = []
    for round in (plain, named):
        details.append([CHECKS[check](round) for check in ("model", "text")])
        round.resources.release()
    assert details[0] == details[1], "they answer as the model that draws does"
    assert written == [plain.model.digest, model_digest(tmp_path / "writer")]
    assert [round.resources.starts["image"] for round in (plain, named)] == [1, 2]
