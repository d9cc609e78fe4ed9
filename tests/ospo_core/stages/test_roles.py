"""Writer and judge beside the model that draws: whose results they change, and which models are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ospo_core.artifacts.model_digest import model_digest
from ospo_core.artifacts.storage import Storage
from ospo_core.config import RoundConfig
from ospo_core.errors import DamagedArtifactError, MissingModelError, ModelError
from ospo_core.rounds import Round
from ospo_core.schema import StageName
from ospo_core.stages import STAGES
from ospo_core.stages.judge import find_judge
from ospo_core.stages.model_ref import ModelRef, role_model, starting_model, stored_ref
from tests.support.manifests import made
from tests.support.rounds import bound, model_files, small_round

TEXT = {StageName.PROMPTS, StageName.PERTURBATIONS, StageName.QUESTIONS}
UPSTREAM = {name: made(name, 1, model_digest="1" * 64, merged="models/1", parent_digest="2" * 64) for name in StageName}


@pytest.fixture
def model(tmp_path: Path) -> ModelRef:
    folder = model_files(tmp_path / "model")
    return ModelRef(digest=model_digest(folder), source=str(folder))


def with_roles(root: Path, complete: bool = True, **roles: str) -> RoundConfig:
    """A round whose held-out prompts come with questions or not."""
    config = small_round(root, model={"path": str(root / "model"), **roles})
    if complete:
        line = {"prompt": "a red star", "questions": ["is there a red star ?"]}
        (root / "heldout.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    return config


def prints(config: RoundConfig, model: ModelRef) -> dict[StageName, str]:
    return {name: bound(stage, config, UPSTREAM, model).fingerprint for name, stage in STAGES.items()}


@pytest.mark.parametrize(
    ("role", "complete", "changed"),
    [
        ("writer", True, TEXT),
        ("writer", False, TEXT | {StageName.EVALUATION}),  # the writer decomposes held-out prompts, too
        ("judge", True, {StageName.SCORES}),
        ("judge", False, {StageName.SCORES}),
    ],
)
def test_a_role_is_part_of_the_identity_of_exactly_the_stages_that_use_it(
    tmp_path: Path, model: ModelRef, role: str, complete: bool, changed: set[StageName]
) -> None:
    copies = [str(model_files(tmp_path / name, "other weights")) for name in ("one", "two")]
    plain = prints(with_roles(tmp_path, complete), model)
    named, again = (prints(with_roles(tmp_path, complete, **{role: copy}), model) for copy in copies)
    assert {name for name in StageName if named[name] != plain[name]} == changed
    assert named == again, "a folder's name changes nothing"
    storage = Storage(str(tmp_path / "store"))
    rounds = [
        Round(with_roles(tmp_path, complete, **roles), storage, model).id
        for roles in ({}, *({role: c} for c in copies))
    ]
    assert rounds[0] != rounds[1] == rounds[2]


def test_an_evaluation_alone_is_the_same_whoever_writes(tmp_path: Path, model: ModelRef) -> None:
    storage, other = Storage(str(tmp_path / "store")), str(model_files(tmp_path / "other", "other weights"))
    named: list[dict[str, str]] = [{}, {"writer": other}, {"judge": other}]
    assert len({Round(with_roles(tmp_path, **roles), storage, model, "evaluation").id for roles in named}) == 1


def test_what_the_writer_wrote_does_not_depend_on_who_draws(tmp_path: Path, model: ModelRef) -> None:
    config = with_roles(tmp_path, writer=str(model_files(tmp_path / "writer", "other weights")))
    child = model_files(tmp_path / "child", "trained weights")
    other = prints(config, ModelRef(digest=model_digest(child), source=str(child)))
    same = prints(config, model)
    assert {name for name in StageName if other[name] == same[name]} >= TEXT
    assert other[StageName.IMAGES] != same[StageName.IMAGES]


def test_runs_know_their_model_and_judge(tmp_path: Path, model: ModelRef) -> None:
    folders = {role: model_files(tmp_path / role, f"weights of the {role}") for role in ("writer", "judge")}
    config = with_roles(tmp_path, complete=False, **{role: str(folder) for role, folder in folders.items()})
    runs = {name: bound(stage, config, UPSTREAM, model) for name, stage in STAGES.items()}
    digests = {role: model_digest(folder) for role, folder in folders.items()}
    assert {name for name, run in runs.items() if run.model.digest == digests["writer"]} == TEXT
    judge = runs[StageName.SCORES].judge
    assert judge is not None and judge.model is not None and judge.model.digest == digests["judge"]
    assert runs[StageName.SCORES].model == runs[StageName.IMAGES].model == model
    found = find_judge(config, runs[StageName.SCORES].storage, model)
    assert found.model == model and found.asking is not None, "evaluation.judge=start stays the model that draws"
    assert found.asking.digest == digests["writer"]


@pytest.mark.parametrize("role", ["writer", "judge"])
@pytest.mark.parametrize(
    ("kind", "message", "remedy"),
    [
        (None, "no such folder", "Give a local folder"),
        ("llama", "not a Janus or Emu3 model", "Use a Janus or Emu3"),  # it cannot read pictures
        ("emu3", "its kind is emu3, that of the model that draws janus, and model.family is the", "of the same kind"),
    ],
)
def test_a_role_that_cannot_be_played_is_refused_by_its_option(
    tmp_path: Path, model: ModelRef, role: Any, kind: str | None, message: str, remedy: str
) -> None:
    folder = tmp_path / "other"
    if kind is not None:
        (model_files(folder) / "config.json").write_text(json.dumps({"model_type": kind}), encoding="utf-8")
    round = Round(with_roles(tmp_path, **{role: str(folder)}), Storage(str(tmp_path / "store")), model)
    with pytest.raises(ModelError, match=rf"^model\.{role}: {message}.*got .*other.*{remedy}"):
        round.bind(StageName.PROMPTS if role == "writer" else StageName.SCORES, UPSTREAM)


@pytest.mark.parametrize("role", ["writer", "judge"])
def test_repositories_are_downloaded_with_the_starting_model_and_not_for_a_plan(
    tmp_path: Path, model: ModelRef, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, asked = model_files(tmp_path / "there"), list[tuple[str, bool]]()

    def resolve(path: str, download: bool = True) -> Path:
        asked.append((path, download))
        return there if "OWNER/NAME" in path else Path(path)

    monkeypatch.setattr("ospo_core.models.locate.resolve_model", resolve)
    config, storage = with_roles(tmp_path, **{role: "OWNER/NAME"}), Storage(str(tmp_path / "store"))
    starting_model(config, storage, download=False)
    prints(config, model)
    assert ("OWNER/NAME", False) in asked and not any(download for _, download in asked)
    starting_model(config, storage)
    assert ("OWNER/NAME", True) in asked


def test_a_plan_goes_on_without_a_repository_that_is_not_there(tmp_path: Path, model: ModelRef) -> None:
    config = with_roles(tmp_path, writer="OWNER/NAME")
    with pytest.raises(MissingModelError, match=r"^model\.writer: .*not in the Hugging Face cache"):
        bound(STAGES[StageName.PROMPTS], config, {}, model)


def test_the_kind_of_a_model_in_the_storage_is_read_there(tmp_path: Path, model: ModelRef) -> None:
    config, storage = with_roles(tmp_path, judge=str(tmp_path / "model")), Storage(str(tmp_path / "store"))
    key = f"models/{model.digest}"
    storage.put_folder(Path(model.source), key)
    found = role_model(config, storage, stored_ref(model.digest, key), "judge")
    assert found == model
    storage.write(f"{key}/config.json", b"[]")
    with pytest.raises(DamagedArtifactError, match="what kind of model"):
        role_model(config, storage, stored_ref(model.digest, key), "judge")
