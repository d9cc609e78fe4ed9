"""Benchmarks of tiny random models and evaluators: drawn once, scored by several, resumed, compared, refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ospo_core.artifacts.ids import derive_seed
from ospo_core.artifacts.manifest import Manifest, ShardEntry
from ospo_core.artifacts.model_digest import model_digest
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.tables import read_table
from ospo_core.config import RoundConfig
from ospo_core.errors import MissingModelError, StageError
from ospo_core.evaluation.benchmarks.comparison import page_of
from ospo_core.evaluation.benchmarks.geneval import COLORS
from ospo_core.evaluation.judges import embedded_oracle
from ospo_core.models.pictures import decode_png
from ospo_core.rounds import Round
from ospo_core.rounds.garbage import find_garbage
from ospo_core.rounds.records import record_round
from ospo_core.schema import StageName
from ospo_core.stages import ShardSpec, StageRun, run_stage
from ospo_core.stages.benchmark import BENCHMARK, is_judged
from ospo_core.stages.model_ref import ModelRef
from ospo_core.stages.resources import Resources
from tests.support.chat_server import chat_answer, chat_server
from tests.support.rounds import bound, finished, small_round
from tests.support.tiny_evaluators import tiny_blip, tiny_clip, tiny_dpt, tiny_owlv2
from tests.support.tiny_janus import make_tiny_janus

GENEVAL = [
    {"tag": "counting", "include": [{"class": "circle", "count": 2}], "prompt": "two circles"},
    {"tag": "colors", "include": [{"class": "star", "count": 1, "color": "red"}], "prompt": "a red star"},
]
EVERY_CATEGORY = {
    "color": "a red circle and a blue star",
    "shape": "a large circle and a small star",
    "texture": "a striped circle and a dotted star",
    "spatial": "a circle on the left of a star",
    "3d_spatial": "a circle behind a star",
    "numeracy": "two circles",
    "non_spatial": "a circle touching a star",
    "complex": "The red circle is on the left of the blue star.",
}
DPG = (
    "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,question_natural_language\n"
    "p1,a red circle,,1,0,entity,whole,entity - whole (circle),is there a circle?\n"
    "p1,a red circle,,2,1,attribute,color,attribute - color (circle),is there a red circle?\n"
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    makers = {"vqa": tiny_blip, "detector": tiny_owlv2, "clip": tiny_clip, "depth": tiny_dpt}
    models = {f"model{seed}": make_tiny_janus(root / f"model{seed}", seed=seed) for seed in (0, 1)}
    return {**models, **{name: make(root / name) for name, make in makers.items()}}


class Benchmark:
    """A benchmark in a storage of its own."""

    def __init__(self, root: Path, folders: dict[str, Path], name: str, **options: Any) -> None:
        self.root = root
        (root / "evaluation_metadata.jsonl").write_text("\n".join(map(json.dumps, GENEVAL)), encoding="utf-8")
        (root / "dpg_bench.csv").write_text(DPG, encoding="utf-8")
        for category, prompt in EVERY_CATEGORY.items():
            (root / f"{category}_val.txt").write_text(prompt, encoding="utf-8")
        roles = {role: str(folders[role]) for role in ("vqa", "detector", "clip", "depth")}
        evaluation = options.pop("evaluation", {})
        section = {"name": name, "prompts": str(root), "samples": 2, "threshold": 0.0, **roles, **options}
        sections = {"benchmark": section, "evaluation": evaluation, "storage": {"shard_size": 2}}
        self.config: RoundConfig = small_round(root, model={"path": str(folders["model0"])}, **sections)
        self.storage, self.resources = Storage(self.config.storage.root), Resources()
        self.models = [
            ModelRef(digest=model_digest(folders[f"model{n}"]), source=str(folders[f"model{n}"])) for n in (0, 1)
        ]

    def pictures(self, model: int = 0) -> StageRun:
        return bound(BENCHMARK[StageName.IMAGES], self.config, {}, self.models[model], resources=self.resources)

    def scores(self, pictures: Manifest, model: int = 0, **changes: Any) -> StageRun:
        section = self.config.benchmark.model_copy(update=changes)
        config = self.config.model_copy(update={"benchmark": section})
        upstream = {StageName.IMAGES: pictures}
        stage = BENCHMARK[StageName.EVALUATION]
        return bound(stage, config, upstream, self.models[model], resources=self.resources)

    def rows(self, manifest: Manifest) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = read_table(self.storage, manifest).to_pylist()
        return rows


@pytest.mark.parametrize(
    ("name", "prompts", "categories"),
    [
        ("t2i-compbench", 8, set(EVERY_CATEGORY)),
        ("geneval", 2, {"counting", "colors", "all"}),
        ("dpg", 1, {"entity", "attribute", "all"}),
    ],
)
def test_a_public_benchmark_with_tiny_evaluators(
    tmp_path: Path, folders: dict[str, Path], name: str, prompts: int, categories: set[str]
) -> None:
    made = Benchmark(tmp_path, folders, name)
    pictures = finished(made.pictures())
    assert pictures.rows == pictures.items_in == 2 * prompts and len(pictures.shards) == prompts
    drawn = made.rows(pictures)
    assert {row["guidance"] for row in drawn} == {5.0}
    assert [row["seed"] for row in drawn] == [
        derive_seed("evaluation", 42, row["item_id"], row["sample"]) for row in drawn
    ]
    scores = finished(made.scores(pictures))
    rows = made.rows(scores)
    assert [(row["item_id"], row["sample"]) for row in rows] == [(row["item_id"], row["sample"]) for row in drawn]
    assert all(-1 <= row["score"] <= 1 for row in rows) and scores.drops == {}
    summary = scores.extra["benchmark"]
    assert set(summary["groups"]) == categories and f"not the evaluator of {name}" in summary["scored_by"]
    assert summary["changed"] == [f"samples 2 instead of {10 if name == 't2i-compbench' else 4}"]
    assert made.resources.starts["image"] == made.resources.starts["evaluators"] == 1


def test_the_oracle_scores_geneval_of_the_embedded_world_as_it_reads_it(
    tmp_path: Path, folders: dict[str, Path]
) -> None:
    """`embedded:shapes` as the detector needs no evaluator's folder: what is drawn is what the oracle reads."""
    made = Benchmark(tmp_path, folders, "geneval", detector="embedded:shapes", clip=str(tmp_path / "none"))
    section = made.config.model.model_copy(update={"path": "embedded:shapes"})
    made.config = made.config.model_copy(update={"model": section})
    from ospo_core.stages.model_ref import starting_model

    made.models[0] = starting_model(made.config, made.storage)
    pictures = finished(made.pictures())
    scores = finished(made.scores(pictures))
    assert scores.ingredients["judge"] == {} and scores.ingredients["fields"]["oracle"] == ["detector"]
    shown = {(row["item_id"], row["sample"]): row["image"]["bytes"] for row in made.rows(pictures)}
    for row in made.rows(scores):
        exact = embedded_oracle(decode_png(shown[row["item_id"], row["sample"]]), row["prompt"])
        assert row["score"] == 1.0 or not exact, "whatever shows the prompt exactly satisfies GenEval"
    assert not any("dog" in row["reason"] for row in made.rows(scores)) and "red" in COLORS


def test_other_scorers_reuse_the_pictures_and_have_other_results(tmp_path: Path, folders: dict[str, Path]) -> None:
    made = Benchmark(tmp_path, folders, "geneval")
    pictures = finished(made.pictures())
    by_evaluators = made.scores(pictures)
    stricter = made.scores(pictures, threshold=0.9)
    judged = made.scores(pictures, scorer="judge")
    assert len({run.fingerprint for run in (by_evaluators, stricter, judged)}) == 3
    assert made.scores(pictures, batch_size=1).fingerprint == by_evaluators.fingerprint
    assert finished(judged).extra["benchmark"]["scored_by"].startswith("Scored by the model that the first round")
    assert made.resources.starts["image"] == 1, "the judge is the model that has drawn"
    single = finished(made.scores(pictures, batch_size=1))
    other = Benchmark(tmp_path_of(tmp_path), folders, "geneval")
    again = finished(other.scores(finished(other.pictures()), batch_size=16))
    assert again.digest == single.digest, "batches change nothing"


def tmp_path_of(root: Path) -> Path:
    folder = root / "again"
    folder.mkdir()
    return folder


def test_a_server_judges_everything(tmp_path: Path, folders: dict[str, Path]) -> None:
    with chat_server(lambda body, number: (200, chat_answer("Yes"))) as server:
        judge = {"judge": "endpoint", "judge_url": server.url, "judge_model": "eyes"}
        made = Benchmark(tmp_path, folders, "geneval", scorer="judge", evaluation=judge)
        scores = finished(made.scores(finished(made.pictures())))
    assert [row["score"] for row in made.rows(scores)] == [1.0] * 4 and len(server.seen) == 4
    assert "eyes behind an endpoint" in scores.extra["benchmark"]["scored_by"]
    assert scores.counts["answers_without_probabilities"] == 4


@pytest.mark.parametrize("after", [1, 2])
def test_a_killed_benchmark_resumes_at_the_first_missing_shard(
    tmp_path: Path, folders: dict[str, Path], after: int
) -> None:
    made, computed = Benchmark(tmp_path, folders, "t2i-compbench"), list[str]()

    def compute(run: StageRun, specs: Sequence[ShardSpec]) -> Iterator[ShardEntry]:
        for spec in specs:
            if len(computed) == after:
                raise KeyboardInterrupt
            entry, new = run.compute_shard(spec)
            computed.extend([spec.name] if new else [])
            yield entry

    with pytest.raises(KeyboardInterrupt):
        run_stage(made.pictures(), map_shards=compute)
    assert (
        finished(made.pictures()).digest
        == finished(Benchmark(tmp_path_of(tmp_path), folders, "t2i-compbench").pictures()).digest
    )
    assert len(computed) == after


def test_two_models_are_compared_by_prompt_and_a_record_keeps_their_results(
    tmp_path: Path, folders: dict[str, Path]
) -> None:
    made, measured = Benchmark(tmp_path, folders, "geneval"), []
    for number, model in enumerate(made.models):
        round = Round(made.config, made.storage, model, "benchmark", made.resources)
        record_round(round)
        pictures = finished(round.bind(StageName.IMAGES, {}))
        scores = finished(round.bind(StageName.EVALUATION, {StageName.IMAGES: pictures}))
        measured.append((f"model {number}", scores))
    page = page_of(made.storage, measured)
    assert [one["name"] for one in page["models"]] == ["model 0", "model 1"]
    before, after = (one["groups"] for one in page["models"])
    assert page["categories"] == ["colors", "counting", "all"] and page["difference"] is not None
    for category in page["categories"]:
        gained = after[category]["score"] - before[category]["score"]
        assert page["difference"][category]["difference"] == pytest.approx(gained)
    published = {one["model"]: one["source"] for one in page["published"]}
    assert set(published) == {f"{way}Janus-Pro-{size}" for way in ("", "OSPO, ") for size in ("1B", "7B")}
    assert all("arXiv 25" in source and "table" in source for source in published.values())
    assert find_garbage(made.storage, 0.0) == []


def test_own_prompts_that_the_oracle_cannot_decide_are_counted(tmp_path: Path, folders: dict[str, Path]) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text('{"prompt": "a red circle"}', encoding="utf-8")
    made = Benchmark(tmp_path, folders, str(file))
    assert not is_judged(made.config), "the oracle decides in the family of the embedded world"
    pictures = finished(made.pictures())
    with pytest.raises(StageError, match=r"no picture has a score \(got \{'undecidable': 2\}\)"):
        finished(made.scores(pictures))  # pictures of 32 pixels are not of that world
    judged = finished(made.scores(pictures, scorer="judge"))
    assert judged.rows == 2 and judged.drops == {}
    evaluators = made.scores(pictures, scorer="evaluators")
    assert evaluators.judge is not None and evaluators.judge.evaluators == {}


def test_a_score_that_is_no_number_is_refused(tmp_path: Path, folders: dict[str, Path]) -> None:
    made = Benchmark(tmp_path, folders, "t2i-compbench")
    pictures = finished(made.pictures())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "ospo_core.evaluation.benchmarks.evaluators.Clip.similarity", lambda self, *_: [float("nan")] * len(_[0])
        )
        with pytest.raises(StageError, match=r"benchmark, non_spatial-00000: an evaluator computed no number"):
            finished(made.scores(pictures))


def test_a_missing_evaluator_is_named_before_anything_is_scored(tmp_path: Path, folders: dict[str, Path]) -> None:
    made = Benchmark(tmp_path, folders, "geneval", detector=str(tmp_path / "nowhere"))
    with pytest.raises(MissingModelError, match=r"benchmark\.detector: no such folder"):
        made.scores(finished(made.pictures()))
