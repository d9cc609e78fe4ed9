"""The baselines give the round's own results at a tiny size: tokens, answers, losses and texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.baselines.images import published_images, transformers_images
from benchmarks.baselines.questions import Together, reread_answers
from benchmarks.baselines.text import TransformersGenerate
from benchmarks.baselines.training import Pairs, PublishedTrainer
from benchmarks.random_janus import SIZES, dense_prompts, questions_about, random_janus
from benchmarks.workloads import RoundTrainer, embedded_model, requests_of, world
from ospo_core.config.sections import EngineConfig, LoraSettings, TrainingConfig
from ospo_core.engines import build_engine
from ospo_core.models.export import export_text_backbone
from ospo_core.models.janus.model import JanusModel
from ospo_core.models.sampling import sample_images
from ospo_core.models.vqa import answer_questions

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def embedded() -> JanusModel:
    return embedded_model()


@pytest.fixture(scope="module")
def tiny() -> JanusModel:
    return random_janus(SIZES["tiny"], CPU, torch.float32)


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_published_images_are_the_samplers(embedded: JanusModel, guidance: float) -> None:
    prompts = [item.prompt for item in world(6)]
    ours = sample_images(embedded, prompts, range(6), guidance, 0.0, 6).tokens
    theirs = published_images(embedded, prompts, guidance, 4, greedy=True)
    assert np.array_equal(ours, theirs.numpy())


def test_transformers_images_are_the_samplers(embedded: JanusModel) -> None:
    prompts = [item.prompt for item in world(6)]
    ours = sample_images(embedded, prompts, range(6), 5.0, 0.0, 6).tokens
    theirs = transformers_images(embedded, prompts, 5.0, 6, greedy=True)
    assert np.array_equal(ours, theirs.numpy())


@pytest.mark.parametrize("together", ["picture", 1, 4])
def test_reread_answers_are_the_rounds(tiny: JanusModel, together: Together) -> None:
    size = tiny.geometry.height
    pictures = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    asked = [questions_about(index, count) for index, count in enumerate((2, 0, 3))]
    ours = answer_questions(tiny, pictures, asked, 64)
    theirs = reread_answers(tiny, pictures, asked, together)
    assert [len(some) for some in theirs] == [2, 0, 3]
    for mine, other in zip(ours, theirs, strict=True):
        assert np.allclose(mine, other, atol=1e-4)


@pytest.mark.parametrize("recompute", [False, True])
def test_the_published_step_has_the_rounds_losses(tmp_path: Path, recompute: bool) -> None:
    """Two steps, so that gradients and optimiser agree, too; without dropout, and adapters that begin alike."""
    config = TrainingConfig(lora=LoraSettings(dropout=0.0), batch_size=2, caption_dropout=0.0, learning_rate=1e-2)
    mine, other = (random_janus(SIZES["tiny"], CPU, torch.float32) for _ in range(2))
    geometry = mine.geometry
    tokens = np.random.default_rng(0).integers(0, geometry.codes, (4, geometry.tokens), dtype=np.uint16)
    pairs = Pairs(dense_prompts(3)[:2], dense_prompts(3)[1:], tokens[:2], tokens[2:])
    ours, theirs = RoundTrainer(mine, pairs, config, False), PublishedTrainer(other, config, recompute)
    ours.give_adapter_to(theirs.adapted)
    for _ in range(2):
        assert ours.step() == pytest.approx(theirs.step(pairs), abs=1e-5)


def test_generate_gives_the_engines_greedy_texts(tmp_path: Path, embedded: JanusModel) -> None:
    folder = export_text_backbone(embedded.folder, tmp_path / "text")
    requests = requests_of([item.prompt for item in world(6)], 12, greedy=True)
    with build_engine(EngineConfig(kind="transformers"), folder) as engine:
        ours = engine.generate(requests)
    theirs = TransformersGenerate(folder).answers([request.prompt for request in requests], 12, 4, greedy=True)
    assert [answer.tokens for answer in ours] == list(map(len, theirs))
