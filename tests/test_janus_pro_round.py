"""A whole round by the shipped profile for Janus-Pro-7B, on a random model of the true layout, with only sizes changed.

384 px, 576 image tokens, 16 384 codes, 102 400 text ids and a byte-level tokenizer; few and narrow layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.round import RoundResult, self_improvement_round
from ospo_core.artifacts.model_digest import model_digest
from ospo_core.artifacts.storage import Storage
from ospo_core.config import load_profile
from ospo_core.config.sections import EngineConfig
from ospo_core.engines import TextEngine
from ospo_core.schema import StageName, SubCategory
from ospo_core.stages.model_ref import model_folder, trained_model
from ospo_core.stages.resources import Resources
from tests.support.fake_engine import FakeEngine
from tests.support.janus_pro import Shape, load_janus_pro, make_janus_pro
from tests.support.scripted_janus_pro import answer

PROMPTS = 2


@pytest.fixture(autouse=True)
def server(prefect_server: str) -> Iterator[None]:
    yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_janus_pro(tmp_path_factory.mktemp("models") / "janus-pro", Shape())


def run_round(folder: Path, root: Path, *options: str) -> RoundResult:
    """Run the profile on the CPU with small numbers.

    Pairs are the best and the worst image of a prompt: a random model's answers pass no threshold of the paper.
    """
    quotas = [f"prompts.quotas.{name.value}={PROMPTS if name is SubCategory.COLOR_1 else 0}" for name in SubCategory]
    sizes = [
        f"storage.root={root / 'store'}",
        f"storage.scratch={root / 'scratch'}",
        f"model.path={folder}",
        "model.device=cpu",
        "engine.kv_cache_gib=0.1",
        "engine.max_num_seqs=4",
        "questions.max_questions=2",
        "images.batch_size=16",
        "scores.batch_size=16",
        "selection.rule=best_of_n",
        "training.steps=2",
        "training.batch_size=1",
        "training.accumulation=1",
        "evaluation.limit=1",
        "evaluation.samples=1",
        "evaluation.bootstrap=50",
    ]
    return self_improvement_round(load_profile("janus-pro-7b", [*sizes, *quotas, *options]))


def check_round(result: RoundResult, folder: Path, root: Path) -> None:
    """Check that every stage has rows, pictures the true size, and the trained model the layout of its parent."""
    assert list(result.manifests) == list(StageName) and result.promotion is not None
    assert all(manifest.rows for manifest in result.manifests.values())
    trained = trained_model(result.manifests[StageName.TRAINING])
    child = model_folder(trained, Storage(str(root / "store")), root / "fetched")
    assert model_digest(child) == trained.digest != model_digest(folder)
    loaded, parent = load_janus_pro(child), load_janus_pro(folder)
    assert (loaded.geometry, loaded.special) == (parent.geometry, parent.special)
    assert (loaded.geometry.tokens, loaded.geometry.codes, loaded.geometry.height) == (576, 16_384, 384)
    text = loaded.generation_text("a red  bench")
    assert loaded.tokenizer(text)["input_ids"] == parent.tokenizer(text)["input_ids"]


def test_a_scripted_model_of_the_true_layout_goes_through_a_round(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = FakeEngine(answer)

    def scripted(self: Resources, config: EngineConfig, folder: Path, digest: str, scratch: Path) -> TextEngine:
        return engine

    monkeypatch.setattr(Resources, "text_engine", scripted)
    result = run_round(folder, tmp_path)
    check_round(result, folder, tmp_path)
    assert result.manifests[StageName.QUESTIONS].drops == {} and result.manifests[StageName.PROMPTS].rows == PROMPTS
    assert engine.calls


def test_a_random_model_writes_its_texts_in_vllm_under_structured_output(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    sizes = ["engine.max_num_seqs=8", "engine.min_parsed=0", "perturbations.densify=false"]  # random prose never ends
    result = run_round(folder, tmp_path, *sizes)
    check_round(result, folder, tmp_path)
