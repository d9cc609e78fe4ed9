"""The evaluation of tiny models: one judge for both sides, the same questions in every round, resuming in between.

The accuracy of one model counts each prompt once, by the oracle if there is one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ospo_core.artifacts.manifest import Manifest, ShardEntry
from ospo_core.artifacts.model_digest import model_digest
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.tables import read_table
from ospo_core.config import RoundConfig
from ospo_core.errors import DamagedArtifactError, StageError
from ospo_core.evaluation.judges import ModelJudge
from ospo_core.schema import CHILD, PARENT, StageName
from ospo_core.stages import STAGES, ShardSpec, StageRun, run_stage
from ospo_core.stages.evaluation import MODEL_EVALUATION, accuracy_by_category
from ospo_core.stages.model_ref import ModelRef, trained_model
from tests.support.chat_server import chat_answer, chat_server
from tests.support.manifests import published_training
from tests.support.rounds import ScriptedResources, bound, finished, small_round
from tests.support.scripted_text import ScriptedEngine
from tests.support.tiny_janus import load_tiny_janus, make_tiny_janus

STAGE = STAGES[StageName.EVALUATION]
ROUNDS = 3


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders of the model of a first round, and of what this round and the next two trained."""
    root = tmp_path_factory.mktemp("models")
    return [make_tiny_janus(root / f"{number}", seed=number) for number in range(ROUNDS + 1)]


class Evaluations:
    """A storage after the trainings of three rounds, and their evaluations."""

    def __init__(self, root: Path, models: Sequence[Path], **evaluation: Any) -> None:
        self.config = small_round(
            root, model={"path": str(models[0])}, evaluation={"limit": 2, **evaluation}, storage={"shard_size": 1}
        )
        self.storage = Storage(self.config.storage.root)
        self.resources = ScriptedResources()
        self.parents = [ModelRef(digest=model_digest(models[0]), source=str(models[0]))]
        self.trainings: list[Manifest] = []
        for number, folder in enumerate(models[1:], start=1):
            self.trainings.append(published_training(self.storage, number, self.parents[-1], folder))
            self.parents.append(trained_model(self.trainings[-1]))

    def run(self, number: int = 0, config: RoundConfig | None = None) -> StageRun:
        upstream = {StageName.TRAINING: self.trainings[number]}
        return bound(STAGE, config or self.config, upstream, self.parents[number], resources=self.resources)

    def rows(self, manifest: Manifest) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = read_table(self.storage, manifest).to_pylist()
        return rows


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, models: list[Path]) -> Evaluations:
    return Evaluations(tmp_path_factory.mktemp("evaluations"), models)


@pytest.fixture(scope="module")
def first(made: Evaluations) -> Manifest:
    return finished(made.run())


def test_both_sides_are_judged_by_the_same_weights(made: Evaluations, first: Manifest, models: list[Path]) -> None:
    judge = ModelJudge(load_tiny_janus(models[0]), 8)
    rows = made.rows(first)
    assert [row["model"] for row in rows] == [PARENT] * 2 + [CHILD] * 2
    for row in rows:
        (expected,) = judge.answer([row["image"]["bytes"]], [[answer["question"] for answer in row["answers"]]])
        assert [(answer["p_yes"], answer["p_no"]) for answer in row["answers"]] == [
            (pytest.approx(yes, abs=1e-5), pytest.approx(no, abs=1e-5)) for yes, no in expected
        ]
    by = first.extra["judged_by"]
    assert (by["kind"], by["name"], by["answers"]) == ("start", made.parents[0].digest, 4)
    assert (by["decomposed"], by["whole"], by["questions_by"]) == (2, 0, made.parents[0].digest)
    reason = f"judged by the model that the first round started from ({by['name'][:12]}), by 4 answers"
    assert reason in first.extra["decision"]["reason"]
    assert first.rows == first.items_in == 4 and first.drops == {} and first.counts["images"] == 4


def test_one_model_is_in_memory_at_a_time_and_the_parent_is_kept_as_judge(made: Evaluations, first: Manifest) -> None:
    assert made.resources.starts["text"] == 1 and made.resources.starts["image"] == 2
    assert [entry.name for entry in first.shards] == [
        f"{label}-part-{index:05d}" for label in (PARENT, CHILD) for index in (0, 1)
    ]


def test_three_rounds_have_one_judge_and_the_same_questions(made: Evaluations, first: Manifest) -> None:
    calls = made.resources.engine.calls
    later = [finished(made.run(number)) for number in (1, 2)]
    assert {one.extra["judged_by"]["name"] for one in (first, *later)} == {made.parents[0].digest}
    assert made.resources.engine.calls == calls, "the questions were written in the first round"
    asked = [[[answer["question"] for answer in row["answers"]] for row in made.rows(one)] for one in (first, *later)]
    assert asked[0] == asked[1] == asked[2] and all(asked[0])
    alone = finished(bound(MODEL_EVALUATION, made.config, {}, made.parents[2], resources=made.resources))
    assert alone.extra["judged_by"]["name"] == made.parents[0].digest
    assert "the first round started from" in alone.extra["accuracy"]["judge"]


def test_a_model_judges_its_own_pictures_only_if_asked_to(made: Evaluations, models: list[Path]) -> None:
    section = made.config.evaluation.model_copy(update={"judge": "self"})
    own = finished(made.run(config=made.config.model_copy(update={"evaluation": section})))
    judge = ModelJudge(load_tiny_janus(models[1]), 8)
    row = made.rows(own)[-1]
    (((yes, no),),) = judge.answer([row["image"]["bytes"]], [[row["answers"][0]["question"]]])
    assert (row["answers"][0]["p_yes"], row["answers"][0]["p_no"]) == (pytest.approx(yes), pytest.approx(no))
    assert own.extra["judged_by"]["kind"] == "self" and "weak evidence" in own.extra["decision"]["reason"]


@pytest.mark.parametrize("after", [0, 2, 6])
def test_an_evaluation_killed_in_between_gives_the_same(
    tmp_path: Path, models: list[Path], made: Evaluations, first: Manifest, after: int
) -> None:
    """One shard of questions, then four drawn, then four judged: killed after some of them, and run again."""
    killed = Evaluations(tmp_path, models[:2])
    computed: list[str] = []

    def compute(run: StageRun, specs: Sequence[ShardSpec]) -> Iterator[ShardEntry]:
        for spec in specs:
            if len(computed) == after and not resumed:
                raise KeyboardInterrupt
            entry, new = run.compute_shard(spec)
            computed.extend([spec.name] if new else [])
            yield entry

    resumed = False
    with pytest.raises(KeyboardInterrupt):
        run_stage(killed.run(), map_shards=compute)
    resumed = True
    manifest, _ = run_stage(killed.run(), map_shards=compute)
    assert manifest.digest == first.digest and manifest.extra["decision"] == first.extra["decision"]
    assert len(computed) == len(set(computed)) == 9


def test_a_drawn_shard_that_is_gone_is_named(tmp_path: Path, models: list[Path]) -> None:
    run = Evaluations(tmp_path, models[:2]).run()
    with pytest.raises(DamagedArtifactError, match="drawn-child-part-00001"):
        run.compute_shard(STAGE.more_shards(run, ())[-1])


def test_questions_of_the_file_are_asked_and_no_text_engine_is_started(tmp_path: Path, models: list[Path]) -> None:
    lines = [
        {"prompt": f"a {word} star", "questions": [f"is there a {word} star ?", "is there a star ?"]}
        for word in ("red", "blue")
    ]
    (tmp_path / "given.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    given = Evaluations(tmp_path, models[:2], prompts=str(tmp_path / "given.jsonl"))
    manifest = finished(given.run())
    asked = [[answer["question"] for answer in row["answers"]] for row in given.rows(manifest)]
    assert asked == [line["questions"] for line in lines] * 2
    by = manifest.extra["judged_by"]
    assert (by["decomposed"], by["questions_by"], given.resources.starts["text"]) == (0, "", 0)
    assert "asking" not in manifest.ingredients["fields"] and "asking" not in manifest.ingredients["judge"]


def test_a_prompt_that_cannot_be_decomposed_is_asked_about_as_a_whole(tmp_path: Path, models: list[Path]) -> None:
    class Silent(ScriptedEngine):
        """Says nothing that is a question."""

        def generate(self, requests: Sequence[Any]) -> list[Any]:
            return [answer.__class__("nothing", 1, "stop") for answer in super().generate(requests)]

    silent = Evaluations(tmp_path, models[:2])
    silent.resources = ScriptedResources(Silent())
    manifest = finished(silent.run())
    assert {row["answers"][0]["question"] for row in silent.rows(manifest)} == {
        f"is there {row['prompt']} ?" for row in silent.rows(manifest)
    }
    assert manifest.extra["judged_by"]["whole"] == 2 and manifest.extra["judged_by"]["decomposed"] == 0
    assert sum(count for name, count in manifest.counts.items() if name.startswith("asked_whole_")) == 2


def test_a_server_judges_both_sides(tmp_path: Path, models: list[Path]) -> None:
    with chat_server(lambda body, number: (200, chat_answer("Yes"))) as server:
        there = Evaluations(tmp_path, models[:2], judge="endpoint", judge_url=server.url, judge_model="eyes")
        manifest = finished(there.run())
    assert len(server.seen) == 4 and there.resources.starts["image"] == 2
    by = manifest.extra["judged_by"]
    assert (by["kind"], by["name"], by["answers"], by["without_probabilities"]) == ("endpoint", "eyes", 4, 4)
    assert server.url not in json.dumps(manifest.model_dump(mode="json"))
    assert all(row["vqa_correct"] and row["vqa_score"] == 1.0 for row in there.rows(manifest))
    assert "eyes behind an endpoint, by 4 answers" in manifest.extra["decision"]["reason"]


def row(item: str, category: str, vqa: bool, oracle: bool | None = None) -> dict[str, Any]:
    return {"item_id": item, "category": category, "vqa_correct": vqa, "oracle_correct": oracle}


def test_accuracy_counts_each_prompt_once_with_the_mean_of_its_samples() -> None:
    rows = [row("a", "layout", True), row("a", "layout", False), row("b", "layout", True), row("c", "complex", False)]
    found = accuracy_by_category(rows, "auto")
    assert found["metric"] == "vqa"
    groups = found["groups"]
    assert (groups["layout"]["prompts"], groups["layout"]["accuracy"]) == (2, 0.75)
    assert groups["all"]["accuracy"] == pytest.approx(0.5)
    assert groups["complex"]["low"] <= 0 <= groups["complex"]["high"]


def test_oracle_decides_where_there_is_one() -> None:
    rows = [row("a", "layout", False, True), row("b", "layout", False, True)]
    assert accuracy_by_category(rows, "auto")["groups"]["all"]["accuracy"] == 1.0
    with pytest.raises(StageError, match="oracle"):
        accuracy_by_category([row("a", "layout", True)], "oracle")
