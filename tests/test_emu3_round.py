"""A whole round on a tiny random Emu3 with scripted text, where three checkpoints write, draw and judge."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import Emu3ForConditionalGeneration

from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.model_digest import model_digest
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.tables import read_table
from ospo_core.config import RoundConfig
from ospo_core.config.sections import EngineConfig
from ospo_core.models.emu3.model import Emu3Model
from ospo_core.models.logprobs import mean_logprob
from ospo_core.models.pictures import decode_png
from ospo_core.models.vqa import answer_questions
from ospo_core.schema import StageName
from ospo_core.stages.model_ref import ModelRef, model_folder, trained_model
from ospo_core.stages.resources import Resources
from tests.support.fake_engine import FakeEngine
from tests.support.rounds import run_stages, small_round
from tests.support.scripted_janus_pro import answer
from tests.support.tiny_emu3 import GRID, IMAGE_SIZE, load_tiny_emu3, make_tiny_emu3

ROLES = ("painter", "writer", "judge")


class Scripted(Resources):
    """Resources whose text engine is scripted; `writers` are the digests of the models that it stood for."""

    def __init__(self) -> None:
        super().__init__()
        self.writers: list[str] = []

    def text_engine(self, config: EngineConfig, folder: Path, digest: str, scratch: Path) -> FakeEngine:
        self.writers.append(digest)
        engine: FakeEngine = self._hold("text", ["scripted", digest], lambda: FakeEngine(answer))
        return engine


@dataclass(frozen=True)
class Finished:
    """A finished round and its models by role."""

    config: RoundConfig
    models: dict[str, Path]
    resources: Scripted
    manifests: dict[StageName, Manifest] = field(repr=False)

    @property
    def storage(self) -> Storage:
        return Storage(self.config.storage.root)

    def digest(self, role: str) -> str:
        return model_digest(self.models[role])

    def rows(self, stage: StageName) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = read_table(self.storage, self.manifests[stage]).to_pylist()
        return rows


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    root = tmp_path_factory.mktemp("round")
    models = {role: make_tiny_emu3(root / role, seed) for seed, role in enumerate(ROLES)}
    paths = {"path": str(models["painter"]), "writer": str(models["writer"]), "judge": str(models["judge"])}
    config = small_round(
        root,
        model={**paths, "family": "emu3"},
        prompts={"quotas": {"color_1": 6}},
        images={"guidance": 3.0},
        selection={"filtering": False, "rule": "best_of_n"},
        evaluation={"judge": str(models["judge"])},
    )
    resources, start = Scripted(), ModelRef(digest=model_digest(models["painter"]), source=str(models["painter"]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield Finished(config, models, resources, run_stages(config, resources, StageName.EVALUATION, start))


@pytest.fixture(scope="module")
def painter(finished: Finished) -> Emu3Model:
    return load_tiny_emu3(finished.models["painter"])


def test_every_stage_has_rows(finished: Finished) -> None:
    assert list(finished.manifests) == list(StageName)
    assert all(manifest.rows for manifest in finished.manifests.values())
    assert finished.manifests[StageName.EVALUATION].extra["judged_by"]["name"] == finished.digest("judge")


def test_the_writer_writes(finished: Finished) -> None:
    assert set(finished.resources.writers) == {finished.digest("writer")}, "held-out prompts are decomposed by it, too"


def test_images_hold_codes_alone_and_the_painter_gives_log_probabilities(
    finished: Finished, painter: Emu3Model
) -> None:
    images = finished.rows(StageName.IMAGES)
    assert {len(row["tokens"]) for row in images} == {GRID**2}
    assert {decode_png(row["image"]["bytes"]).shape for row in images} == {(IMAGE_SIZE, IMAGE_SIZE, 3)}
    tokens = np.array([row["tokens"] for row in images], dtype=np.uint16)
    prompts = {row["item_id"]: row["prompt"] for row in finished.rows(StageName.PROMPTS)}
    expected = mean_logprob(painter, [prompts[row["item_id"]] for row in images], tokens, 16)
    assert [row["logprob_base"] for row in finished.rows(StageName.SCORES)] == pytest.approx(expected, abs=1e-5)


def test_a_shard_of_scores_loads_each_model_once(finished: Finished) -> None:
    assert len(finished.manifests[StageName.SCORES].shards) == 2
    loads = {"images": 1, "scores": 2 * 2, "evaluation": 3}
    assert finished.resources.starts["image"] == sum(loads.values())


def test_answers_are_the_judge_s(finished: Finished, painter: Emu3Model) -> None:
    judge, images = load_tiny_emu3(finished.models["judge"]), finished.rows(StageName.IMAGES)
    pictures = np.stack([decode_png(row["image"]["bytes"]) for row in images])
    scores = finished.rows(StageName.SCORES)
    asked = [[given["question"] for given in row["answers"]] for row in scores]
    found = [[(given["p_yes"], given["p_no"]) for given in row["answers"]] for row in scores]
    for model, same in ((judge, True), (painter, False)):
        expected = answer_questions(model, pictures, asked, 16)
        close = [np.allclose(a, b, rtol=1e-4) for a, b in zip(found, expected, strict=True)]
        assert all(close) if same else not any(close)


def test_stock_transformers_and_peft_open_what_was_trained(finished: Finished, tmp_path: Path) -> None:
    training = finished.manifests[StageName.TRAINING]
    assert training.extra["parent_digest"] == finished.digest("painter")
    merged = model_folder(trained_model(training), finished.storage, tmp_path)
    opened: Any = Emu3ForConditionalGeneration.from_pretrained(merged, output_loading_info=True)
    network, info = opened
    assert not info["missing_keys"] and not info["unexpected_keys"]
    finished.storage.get_folder(f"{training.prefix}/adapter", tmp_path / "adapter")
    parent: Any = Emu3ForConditionalGeneration.from_pretrained(finished.models["painter"])
    ids = torch.tensor([load_tiny_emu3(merged).tokenizer("a red bench")["input_ids"]])
    with torch.no_grad():
        before = parent(input_ids=ids).logits
        adapted = PeftModel.from_pretrained(parent, tmp_path / "adapter")(input_ids=ids).logits
        after = network.eval()(input_ids=ids).logits
    assert torch.allclose(adapted, after, atol=1e-4) and not torch.equal(after, before)
