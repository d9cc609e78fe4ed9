"""The benchmark as the gate of rounds: identities, what is found again, and what is refused before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.model_digest import model_digest
from ospo_core.artifacts.storage import Storage
from ospo_core.config import RoundConfig
from ospo_core.errors import ConfigError, MissingModelError, StageError
from ospo_core.rounds import Round
from ospo_core.rounds.estimates import expected_work
from ospo_core.rounds.preflight import check_held_out
from ospo_core.rounds.records import record_round
from ospo_core.schema import CHILD, PARENT, StageName
from ospo_core.stages import STAGES, run_stage
from ospo_core.stages.evaluation import MODEL_EVALUATION
from ospo_core.stages.model_ref import ModelRef, trained_model
from tests.support.manifests import published_training
from tests.support.rounds import ScriptedResources, finished, small_round
from tests.support.tiny_janus import make_tiny_janus

LINES = [
    '{"tag": "counting", "include": [{"class": "circle", "count": 1}], "prompt": "one circle"}',
    '{"tag": "colors", "include": [{"class": "star", "count": 1, "color": "red"}], "prompt": "a red star"}',
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders of the model of a first round, and of what this round and the next one trained."""
    root = tmp_path_factory.mktemp("models")
    return [make_tiny_janus(root / f"{number}", seed=number) for number in range(3)]


def gated(root: Path, start: Path | str = "model", **options: Any) -> RoundConfig:
    """A round whose gate is a benchmark of two prompts in GenEval's form, read by the oracle."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "evaluation_metadata.jsonl").write_text("\n".join(LINES), encoding="utf-8")
    section = {"name": "geneval", "prompts": str(root), "samples": 2, "detector": "embedded:shapes"}
    sections: dict[str, Any] = {"benchmark": {**section, **options.pop("benchmark", {})}, **options}
    promotion = {"metric": "benchmark", **sections.pop("promotion", {})}
    return small_round(root, model={"path": str(start), **sections.pop("model", {})}, promotion=promotion, **sections)


class Rounds:
    """A storage after the trainings of two rounds, the second of which starts from the model of the first."""

    def __init__(self, root: Path, models: Sequence[Path], **options: Any) -> None:
        self.config = gated(root, models[0], evaluation={"limit": 2}, **options)
        self.storage, self.resources = Storage(self.config.storage.root), ScriptedResources()
        self.parents = [ModelRef(digest=model_digest(models[0]), source=str(models[0]))]
        self.trainings: list[Manifest] = []
        for number, folder in enumerate(models[1:], start=1):
            self.trainings.append(published_training(self.storage, number, self.parents[-1], folder))
            self.parents.append(trained_model(self.trainings[-1]))

    def round(self, number: int = 0) -> tuple[Round, dict[StageName, Manifest]]:
        config = self.config.model_copy(update={"seed": number})
        one = Round(config, self.storage, self.parents[number], resources=self.resources)
        return one, {StageName.TRAINING: self.trainings[number]}

    def measure(self, number: int = 0, *labels: str) -> dict[str, bool]:
        """Run the benchmark of a round; return for each model whether anything was computed."""
        one, upstream = self.round(number)
        computed = {}
        for label, benchmark in one.benchmarks(upstream).items():
            if labels and label not in labels:
                continue
            record_round(benchmark)
            pictures, drew = run_stage(benchmark.bind(StageName.IMAGES, {}))
            _, scored = run_stage(benchmark.bind(StageName.EVALUATION, {StageName.IMAGES: pictures}))
            computed[label] = drew or scored
        return computed


def test_parent_and_child_are_measured_and_the_next_round_finds_its_parent(tmp_path: Path, models: list[Path]) -> None:
    made = Rounds(tmp_path, models)
    first, upstream = made.round()
    with pytest.raises(StageError, match="parent and child have not been measured on geneval"):
        first.bind(StageName.EVALUATION, upstream)
    assert made.measure() == {PARENT: True, CHILD: True} and made.measure() == {PARENT: False, CHILD: False}
    assert first.measured({}) is None, "without a training there is no child"
    evaluation = finished(first.bind(StageName.EVALUATION, upstream))
    decision, gate = evaluation.extra["decision"], evaluation.extra["gate"]
    assert (decision["metric"], decision["judge"]) == ("benchmark", "the benchmark geneval")
    assert [group["name"] for group in decision["categories"]] == ["colors", "counting"]
    assert decision["images"] == 4 and gate["changed"] == ["samples 2 instead of 4"]
    measured = first.measured(upstream)
    assert measured is not None and gate["scores"] == {
        PARENT: measured[0].fingerprint,
        CHILD: measured[1].fingerprint,
    }
    assert evaluation.ingredients["benchmark"] == [one.digest for one in measured]
    assert evaluation.extra["held_out"]["metric"] == "vqa" and evaluation.rows == 4

    second, later = made.round(1)
    scores = second.benchmarks(later)[PARENT].scores()
    assert scores is not None and scores.fingerprint == measured[1].fingerprint, "the child of the round before"
    assert made.measure(1) == {PARENT: False, CHILD: True}


def test_other_scores_are_another_evaluation_and_other_settings_another_round(
    tmp_path: Path, models: list[Path]
) -> None:
    made = Rounds(tmp_path, models)
    made.measure()
    one, upstream = made.round()
    evaluation = one.bind(StageName.EVALUATION, upstream)
    other = Round(
        gated(tmp_path, models[0], evaluation={"limit": 2}, benchmark={"samples": 1}),
        made.storage,
        made.parents[0],
        resources=made.resources,
    )
    assert other.id != one.id and other.measured(upstream) is None
    ungated = small_round(tmp_path, model={"path": str(models[0])}, evaluation={"limit": 2})
    plain = Round(ungated, made.storage, made.parents[0], resources=made.resources)
    assert plain.bind(StageName.EVALUATION, upstream).fingerprint != evaluation.fingerprint
    assert "gate" not in plain.bind(StageName.EVALUATION, upstream).ingredients["fields"]
    assert "benchmark" not in plain.bind(StageName.EVALUATION, upstream).ingredients


def test_no_identity_of_other_metrics_has_changed(tmp_path: Path) -> None:
    stage = STAGES[StageName.EVALUATION]
    for metric in ("auto", "vqa", "people"):
        config = small_round(tmp_path, promotion={"metric": metric})
        assert set(stage.fields(config)) == {"evaluation", "prompts", "promotion", "shard_size", "asking"}
        changed = config.model_copy(update={"benchmark": config.benchmark.model_copy(update={"samples": 7})})
        assert stage.fields(config) == stage.fields(changed)
    alone = MODEL_EVALUATION.fields(gated(tmp_path))
    assert alone == {**MODEL_EVALUATION.fields(small_round(tmp_path)), "promotion": None}, "nothing is promoted there"


def test_the_plan_counts_its_pictures(tmp_path: Path) -> None:
    plain, work = (
        expected_work(config)[StageName.EVALUATION].images for config in (small_round(tmp_path), gated(tmp_path))
    )
    assert work - plain == 2 * len(LINES) * 2


@pytest.mark.parametrize(
    ("options", "field", "words"),
    [
        ({"benchmark": {"prompts": None}}, "benchmark.prompts", "is needed for this benchmark"),
        ({"benchmark": {"prompts": "nowhere"}}, "benchmark.prompts", "cannot be read"),
        ({"benchmark": {"name": "nothing.jsonl"}}, "benchmark.name", "is neither a benchmark nor a file"),
        (
            {"benchmark": {"name": "embedded:shapes"}, "model": {"family": "janus_pro"}},
            "benchmark.name",
            "names no benchmark that this model could be measured on",
        ),
        ({"benchmark": {"scorer": "judge"}, "evaluation": {"judge": "self"}}, "evaluation.judge", "different models"),
        ({"benchmark": {"scorer": "judge"}, "evaluation": {"judge": "parent"}}, "evaluation.judge", "two rounds"),
    ],
)
def test_what_cannot_be_a_gate_is_refused_before_the_round_begins(
    tmp_path: Path, options: dict[str, Any], field: str, words: str
) -> None:
    config = gated(tmp_path, **options)
    round = Round(config, Storage(config.storage.root), ModelRef(digest="0" * 64, source="model"))
    with pytest.raises(ConfigError, match=words) as caught:
        record_round(round)
    assert caught.value.field == field and caught.value.remedy and not round.storage.list()


def test_a_missing_evaluator_is_named_before_the_round_begins(tmp_path: Path) -> None:
    config = gated(tmp_path, benchmark={"detector": str(tmp_path / "nowhere")})
    round = Round(config, Storage(config.storage.root), ModelRef(digest="0" * 64, source="model"))
    for refused in (record_round, check_held_out):
        with pytest.raises(MissingModelError, match=r"benchmark\.detector: no such folder"):
            refused(round)
    assert not round.storage.list()
    sound = Round(gated(tmp_path), round.storage, round.model)
    assert check_held_out(sound).endswith("; gate: 2 of geneval")
