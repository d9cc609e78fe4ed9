"""The commands of data in and out, on a round that was published by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from ospo import actions
from tests.support.preference_pairs import encoded, publish_pairs
from tests.support.rounds import small_round
from tests.support.tiny_janus import make_tiny_janus

Run = Callable[..., tuple[int, str, str]]


class FakeHub:
    """In the place of `huggingface_hub.HfApi`: remembers what it was asked for, or refuses."""

    calls: list[dict[str, Any]]
    refusal: Exception | None

    def create_repo(self, name: str, **options: Any) -> str:
        if self.refusal is not None:
            raise self.refusal
        self.calls.append({"name": name, **options})
        return f"https://hub.example/{name}"

    def upload_folder(self, **options: Any) -> None:
        self.calls.append({**options, "files": sorted(path.name for path in Path(options["folder_path"]).iterdir())})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> type[FakeHub]:
    monkeypatch.setattr(FakeHub, "calls", [], raising=False)
    monkeypatch.setattr(FakeHub, "refusal", None, raising=False)
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeHub)
    return FakeHub


@pytest.fixture
def export(run: Run, monkeypatch: pytest.MonkeyPatch, profile: str, tmp_path: Path) -> Run:
    """The command `export` of a round that has prompts and pairs."""
    config = small_round(tmp_path)
    manifests = publish_pairs(actions.storage_of(config))
    monkeypatch.setattr("ospo_core.rounds.plan.plan_round", lambda round: ([], manifests))
    return lambda *arguments: run("export", *arguments, "--profile", profile)


def test_pairs_are_exported_and_counted(export: Run, hub: type[FakeHub], tmp_path: Path) -> None:
    code, out, err = export(str(tmp_path / "out"), "--with", "trl", "--license", "cc0-1.0")
    assert code == 0, err
    assert "attribute 3, layout 3, non_spatial 3" in out and str(tmp_path / "out") in out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["README.md", "data", "trl"]
    assert hub.calls == []


def test_push_uploads_the_complete_folder_to_a_fake_hub(export: Run, hub: type[FakeHub], tmp_path: Path) -> None:
    code, out, _ = export(str(tmp_path / "out"), "--push", "me/pairs")
    assert code == 0 and "https://hub.example/me/pairs" in out
    created, uploaded = hub.calls
    assert created == {"name": "me/pairs", "repo_type": "dataset", "private": True, "exist_ok": True}
    assert uploaded["repo_id"] == "me/pairs" and uploaded["files"] == ["README.md", "data"]


def test_a_refusal_of_the_hub_is_one_message_and_the_folder_stays(
    export: Run, hub: type[FakeHub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "refusal", huggingface_hub.errors.LocalTokenNotFoundError("no token"))
    code, _, err = export(str(tmp_path / "out"), "--push", "me/pairs")
    assert code == 1 and "--push me/pairs" in err and "no token" in err and "hf auth login" in err
    assert (tmp_path / "out" / "README.md").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--push", "pairs"], ["--push", "OWNER/NAME", "'pairs'"]),
        (["--license", "my own"], ["--license", "'my own'"]),
        (["--round", "abcd12"], ["round", "abcd12"]),
        (["--with", "pictures"], ["--with", "pictures"]),
    ],
)
def test_a_wrong_option_is_named_before_any_work(
    export: Run, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    code, out, err = export(str(tmp_path / "out"), *arguments)
    assert code == 2 and out == "" and "Traceback" not in err
    assert all(word in err for word in words)
    assert not (tmp_path / "out").exists()


def test_a_round_that_has_no_pairs_is_not_exported(run: Run, profile: str, tmp_path: Path) -> None:
    code, out, err = run("export", str(tmp_path / "out"), "--profile", profile)
    assert code == 1 and out == "" and "ospo round" in err
    assert not (tmp_path / "out").exists()


def test_import_says_how_to_train_on_the_pairs(run: Run, profile: str, tmp_path: Path) -> None:
    make_tiny_janus(tmp_path / "model")
    (tmp_path / "a.png").write_bytes(encoded(1))
    (tmp_path / "b.png").write_bytes(encoded(2))
    line = '{"prompt": "a red circle", "chosen": "a.png", "rejected": "b.png"}\n'
    (tmp_path / "pairs.jsonl").write_text(line + "{\n")
    code, out, err = run("import-pairs", str(tmp_path / "pairs.jsonl"), "--profile", profile)
    assert code == 0, err
    assert "Pairs imported: 1, 1 of them encoded" in out and "Rows rejected: 1 (1 not json)" in out
    option = next(word for word in out.split() if word.startswith("training.imported_pairs="))
    code, out, _ = run("plan", "--profile", profile, "--set", option, "--set", "training.own_pairs=false")
    assert code == 0 and "training" in out and "prompts" not in out


def test_a_source_that_is_none_is_named(run: Run, profile: str, tmp_path: Path) -> None:
    code, out, err = run("import-pairs", str(tmp_path / "nowhere"), "--profile", profile)
    assert code == 2 and out == "" and "nowhere" in err
    code, out, err = run("export-model", "abcdef", str(tmp_path / "out"), "--profile", profile)
    assert code == 1 and out == "" and "abcdef" in err
