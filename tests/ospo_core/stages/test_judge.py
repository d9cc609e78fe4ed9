"""Who judges: the first model of a lineage is found in the storage, verified, and the same in every round."""

from __future__ import annotations

from pathlib import Path

import pytest

from ospo_core.artifacts.model_digest import model_digest
from ospo_core.artifacts.storage import Storage
from ospo_core.config import RoundConfig, load_profile
from ospo_core.errors import ConfigError, ModelError
from ospo_core.rounds import Round
from ospo_core.schema import StageName
from ospo_core.stages import STAGES
from ospo_core.stages.judge import Judge, find_judge
from ospo_core.stages.model_ref import ModelRef, trained_model
from tests.support.manifests import made, published_training
from tests.support.rounds import bound, model_files, small_round

ENDPOINT = {"judge": "endpoint", "judge_url": "http://127.0.0.1:1/v1", "judge_model": "eyes"}


class Lineage:
    """A folder with the model of a first round, and what further rounds would leave in its storage."""

    def __init__(self, root: Path) -> None:
        self.root, folder = root, model_files(root / "model")
        self.config = small_round(root)
        self.storage = Storage(self.config.storage.root)
        self.models = [ModelRef(digest=model_digest(folder), source=str(folder))]

    def train(self) -> ModelRef:
        """Publish a training of the last model and the model that it made."""
        number, parent = len(self.models), self.models[-1]
        folder = model_files(self.root / f"made-{number}", f"weights {number}")
        child = trained_model(published_training(self.storage, number, parent, folder))
        self.models.append(child)
        return child

    def with_judge(self, judge: str, **options: str) -> RoundConfig:
        return small_round(self.root, evaluation={"judge": judge, **options})


@pytest.fixture
def lineage(tmp_path: Path) -> Lineage:
    return Lineage(tmp_path)


def test_three_rounds_have_the_same_judge(lineage: Lineage) -> None:
    first = lineage.models[0]
    found = [find_judge(lineage.config, lineage.storage, first)]
    for _ in range(2):
        found.append(find_judge(lineage.config, lineage.storage, lineage.train()))
    assert [judge.model for judge in found] == [first] * 3 == [judge.asking for judge in found]
    assert len({str(judge.identity()) for judge in found}) == 1


def test_the_current_model_is_judged_by_the_first_wherever_the_configuration_points(lineage: Lineage) -> None:
    lineage.train()
    last = lineage.train()
    config = lineage.config.model_copy(update={"model": lineage.config.model.model_copy(update={"path": "current"})})
    assert find_judge(config, lineage.storage, last).model == lineage.models[0]


def test_a_moved_first_model_is_found_by_the_configuration_and_a_changed_one_is_not(lineage: Lineage) -> None:
    child = lineage.train()
    (lineage.root / "model").rename(lineage.root / "moved")
    with pytest.raises(
        ModelError, match=r"evaluation\.judge: the model that the first round started from is no longer"
    ):
        find_judge(lineage.config, lineage.storage, child)
    moved = lineage.config.model.model_copy(update={"path": str(lineage.root / "moved")})
    found = find_judge(lineage.config.model_copy(update={"model": moved}), lineage.storage, child)
    assert found.model == ModelRef(digest=lineage.models[0].digest, source=moved.path)
    model_files(lineage.root / "model", "other weights")
    with pytest.raises(ModelError, match="no longer there"):
        find_judge(lineage.config, lineage.storage, child)


def test_a_lineage_with_a_hole_is_refused_unless_the_judge_is_named(lineage: Lineage) -> None:
    lineage.train()
    last = lineage.train()
    lineage.storage.delete_folder(f"training/{1:064x}")
    with pytest.raises(ModelError, match=r"the training that made this model is gone.*evaluation\.judge"):
        find_judge(lineage.config, lineage.storage, last)
    complete = lineage.root / "complete.jsonl"
    complete.write_text('{"prompt": "a red star", "questions": ["is there a red star ?"]}\n', encoding="utf-8")
    named = lineage.with_judge(str(lineage.root / "model"), prompts=str(complete))
    assert find_judge(named, lineage.storage, last).model == lineage.models[0]


def test_a_named_judge_counts_by_its_content(lineage: Lineage) -> None:
    child = lineage.train()
    copies = [model_files(lineage.root / name) for name in ("one", "two")]
    judges = [find_judge(lineage.with_judge(str(path)), lineage.storage, child) for path in copies]
    assert judges[0].kind == "model" and judges[0].identity() == judges[1].identity()
    assert judges[0].identity() == find_judge(lineage.config, lineage.storage, child).identity()
    parent = find_judge(lineage.with_judge("parent"), lineage.storage, child)
    assert parent.model == child and parent.asking == lineage.models[0], "the first model asks, whoever judges"
    with pytest.raises(ModelError, match=r"evaluation\.judge: no such folder.*start, parent, self, endpoint"):
        find_judge(lineage.with_judge("nowhere/at/all"), lineage.storage, child)


def test_the_judge_is_part_of_the_evaluations_identity_and_of_no_other_stage(lineage: Lineage) -> None:
    model = lineage.models[0]
    start, each = lineage.config, lineage.with_judge("self")
    there = small_round(lineage.root, evaluation={**ENDPOINT, "judge_url": "http://127.0.0.1:2"})
    configs = [start, each, small_round(lineage.root, evaluation=ENDPOINT)]
    facts = {"model_digest": "1" * 64, "merged": "models/1", "parent_digest": model.digest}
    training = {StageName.TRAINING: made(StageName.TRAINING, 1, **facts)}
    stage = STAGES[StageName.EVALUATION]
    prints = [bound(stage, config, training, model).fingerprint for config in (*configs, there)]
    assert len(set(prints)) == 3 and prints[2] == prints[3], "an address changes nothing"
    assert len({Round(config, lineage.storage, model).id for config in configs}) == 3
    prompts = STAGES[StageName.PROMPTS]
    assert len({bound(prompts, config, {}, model).fingerprint for config in configs}) == 1


def test_sources_can_be_changed_for_another_machine() -> None:
    ref = ModelRef(digest="1" * 64, source="here")
    moved = Judge(kind="start", model=ref, asking=ref).with_sources(lambda source: f"/there/{source}")
    assert moved.model == moved.asking == ModelRef(digest="1" * 64, source="/there/here")
    assert moved.identity() == Judge(kind="start", model=ref, asking=ref).identity()
    assert Judge(kind="self").with_sources(str.upper) == Judge(kind="self")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"judge": "endpoint"}, "needs evaluation.judge_url and evaluation.judge_model"),
        ({"judge_url": "http://host:1", "judge_model": "eyes"}, "need evaluation.judge=endpoint"),
        ({**ENDPOINT, "judge_url": "http://me:hush@host:1"}, "holds a user name"),
        ({**ENDPOINT, "judge_url": "http://host:1/v1?key=value"}, "holds a user name, a query or a fragment"),
        ({**ENDPOINT, "judge_url": "ftp://host"}, "is not an address"),
        ({**ENDPOINT, "judge_url": "http://[::1"}, "is not an address"),
    ],
)
def test_an_endpoint_is_given_whole_and_without_secrets(options: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_profile("smoke", tuple(f"evaluation.{name}={value}" for name, value in options.items()))
    assert problem in str(caught.value) and "hush" not in str(caught.value)
