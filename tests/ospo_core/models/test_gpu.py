"""The same model on a GPU and on the CPU: same tokens, log-probabilities, answers and losses; memory as predicted.

On a machine without Prefect and the other servers' clients, run this file alone, without the suite's fixtures:

    python -m pytest --noconftest -o addopts=--import-mode=importlib tests/ospo_core/models/test_gpu.py
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray

from ospo_core.config.sections import LoraSettings, ModelConfig, TrainingConfig
from ospo_core.models import sampling
from ospo_core.models.base import UnifiedModel
from ospo_core.models.decoder import _attention_of_a_step
from ospo_core.models.loading import load_model
from ospo_core.models.logprobs import mean_logprob
from ospo_core.models.lora import _without, drawn_dropout
from ospo_core.models.pictures import decode_tokens, encode_pictures, to_pixels
from ospo_core.models.sampling import SampledImages, sample_images
from ospo_core.models.vqa import answer_questions
from ospo_core.training.data import PairData
from ospo_core.training.policy import batch_loss, build_policy, trainable
from tests.support.tiny_janus import CODES, IMAGE_SIZE, TOKENS, make_tiny_janus

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

PROMPTS = ["a red circle", "a blue square left of a green star on a white background", "two circles", "a star"]
SEEDS = [11, 12, 13, 14]
QUESTIONS = [["is there a circle", "is there a red star"], [], ["is there a square"], ["are there two stars"] * 3]
_BLOCK = 512  # bytes; the allocator rounds every tensor up to it


@dataclass(frozen=True)
class Both:
    """The same model in float32 on both devices."""

    cpu: UnifiedModel
    gpu: UnifiedModel


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_janus(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def both(folder: Path) -> Both:
    return Both(load(folder, "cpu"), load(folder, "cuda"))


@pytest.fixture(autouse=True)
def full_float32() -> Iterator[None]:
    """Let no convolution round to TF32; matrix products do not by default."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def fresh(folder: Path) -> Iterator[Both]:
    """Models of their own, for tests that change them."""
    yield Both(load(folder, "cpu"), load(folder, "cuda"))
    torch.cuda.empty_cache()


def load(folder: Path, device: str, dtype: str = "float32") -> UnifiedModel:
    return load_model(folder, ModelConfig(path=str(folder), family="shapes", device=device, dtype=dtype))


def images(count: int) -> NDArray[np.uint16]:
    return np.random.default_rng(0).integers(0, CODES, (count, TOKENS), dtype=np.uint16)


def pictures(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (count, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)


def sample(model: UnifiedModel, guidance: float, temperature: float = 1.0, batch_size: int = 4) -> SampledImages:
    return sample_images(model, PROMPTS, SEEDS, guidance, temperature, batch_size)


@pytest.mark.parametrize(("guidance", "temperature"), [(1.0, 0.0), (5.0, 0.0), (1.0, 1.0), (5.0, 1.0)])
def test_both_devices_draw_the_same_images(both: Both, guidance: float, temperature: float) -> None:
    cpu, gpu = sample(both.cpu, guidance, temperature), sample(both.gpu, guidance, temperature)
    np.testing.assert_array_equal(gpu.tokens, cpu.tokens)
    np.testing.assert_allclose(gpu.mean_logprob, cpu.mean_logprob, atol=1e-4)


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_the_batch_size_changes_no_token_on_the_gpu(both: Both, guidance: float) -> None:
    drawn = []
    for size in (4, 1, 3):
        both.gpu.close()  # what a larger batch has left would be used
        drawn.append(sample(both.gpu, guidance, batch_size=size))
    together, by_ones, by_threes = drawn
    np.testing.assert_array_equal(by_ones.tokens, together.tokens)
    np.testing.assert_array_equal(by_threes.tokens, together.tokens)


def test_steps_are_replayed_from_a_graph_per_segment_in_every_batch(
    fresh: Both, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sampling, "SEGMENTS", {"cuda": 8})
    expected = sample(fresh.cpu, 5.0).tokens
    np.testing.assert_array_equal(sample(fresh.gpu, 5.0).tokens, expected)
    loop = fresh.gpu.batching.kept["sampling"]
    captured = dict(loop._graphs)
    assert len(captured) >= 3 and not caplog.records
    np.testing.assert_array_equal(sample(fresh.gpu, 5.0).tokens, expected)
    assert fresh.gpu.batching.kept["sampling"] is loop and loop._graphs == captured


def test_without_a_graph_the_same_images_are_drawn_after_a_warning(
    fresh: Both, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "graph", refuse)
    np.testing.assert_array_equal(sample(fresh.gpu, 5.0).tokens, sample(fresh.cpu, 5.0).tokens)
    assert [record for record in caplog.records if "cannot be captured" in record.message]


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_log_probabilities_agree(both: Both, batch_size: int) -> None:
    cpu = mean_logprob(both.cpu, PROMPTS, images(4), 4)
    np.testing.assert_allclose(mean_logprob(both.gpu, PROMPTS, images(4), batch_size), cpu, atol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_answers_agree(both: Both, batch_size: int) -> None:
    cpu = answer_questions(both.cpu, pictures(4), QUESTIONS, 64)
    gpu = answer_questions(both.gpu, pictures(4), QUESTIONS, batch_size)
    assert [len(answers) for answers in gpu] == [len(asked) for asked in QUESTIONS]
    for ours, theirs in zip(gpu, cpu, strict=True):
        assert ours == [pytest.approx(answer, abs=1e-3) for answer in theirs]


def test_pictures_agree_to_one_level_and_encode_to_the_same_tokens(both: Both) -> None:
    cpu, gpu = decode_tokens(both.cpu, images(4)), decode_tokens(both.gpu, images(4))
    assert np.abs(gpu.astype(int) - cpu.astype(int)).max() <= 1
    assert encode_pictures(both.gpu, to_pixels(cpu)).equal(encode_pictures(both.cpu, to_pixels(cpu)))


def training_config() -> TrainingConfig:
    """Without dropout, whose noise differs from device to device."""
    return TrainingConfig(lora=LoraSettings(rank=4, alpha=8, dropout=0.0), batch_size=4, caption_dropout=0.5)


def write_pairs(path: Path) -> Path:
    tokens = pa.array(images(8).tolist(), pa.list_(pa.uint16()))
    columns = {"prompt": PROMPTS, "negative_prompt": PROMPTS[::-1]}
    sides = {"chosen_tokens": tokens[:4], "rejected_tokens": tokens[4:]}
    pq.write_table(pa.table({**columns, **sides}), path)
    return path


def test_loss_gradient_and_the_next_loss_agree(fresh: Both, tmp_path: Path) -> None:
    config = training_config()
    path = write_pairs(tmp_path / "pairs.parquet")
    losses: list[list[float]] = []
    norms: list[float] = []
    for model in (fresh.cpu, fresh.gpu):
        batch = PairData(path, model, config, seed=3).micro_batch(0, 0).to(model.device)
        policy = build_policy(model, config, seed=3)
        parameters = list(trainable(policy).values())
        optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0)
        losses.append([])
        for _ in range(2):
            optimizer.zero_grad()
            loss, _ = batch_loss(policy, batch, config.loss)
            loss.total.backward()
            losses[-1].append(float(loss.total.detach()))
            norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
        norms.append(float(norm))
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    assert losses[0][1] < losses[0][0]
    assert norms[1] == pytest.approx(norms[0], rel=1e-3)


def test_dropout_clears_its_share_of_the_numbers() -> None:
    x = torch.ones((1001, 999), device="cuda")
    kept = _without(x, drawn_dropout(x, 0.05))
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    assert float(kept.mean()) == pytest.approx(0.95, abs=2e-3)


def test_attention_of_new_shapes_is_not_planned_by_cudnn(both: Both) -> None:
    assert both.gpu.device.type == "cuda" and not torch.backends.cuda.cudnn_sdp_enabled()
    with _attention_of_a_step(both.gpu.device):
        assert torch.backends.cuda.cudnn_sdp_enabled()
    assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_bfloat16_loads_and_runs(folder: Path, both: Both) -> None:
    half = load(folder, "cuda", "bfloat16")
    assert half.dtype == torch.bfloat16
    drawn = sample(half, 5.0)
    assert drawn.tokens.shape == (4, TOKENS) and drawn.tokens.max() < CODES
    assert decode_tokens(half, drawn.tokens).shape == (4, IMAGE_SIZE, IMAGE_SIZE, 3)
    np.testing.assert_allclose(
        mean_logprob(half, PROMPTS, images(4), 4), mean_logprob(both.cpu, PROMPTS, images(4), 4), atol=0.2
    )
    for answers in answer_questions(half, pictures(4), QUESTIONS, 64):
        assert all(0.0 <= chance <= 1.0 for answer in answers for chance in answer)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_take_the_memory_that_was_predicted(folder: Path, dtype: str) -> None:
    gc.collect()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    model = load(folder, "cuda", dtype)
    taken = torch.cuda.memory_allocated() - before
    tensors = [*model.network.parameters(), *model.network.buffers()]
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in model.network.buffers())
    assert model.memory.weights <= taken <= model.memory.weights + buffers + _BLOCK * len(tensors)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_keys_and_values_take_the_memory_that_was_predicted(folder: Path, dtype: str) -> None:
    model, rows, length = load(folder, "cuda", dtype), 8, 256
    embeddings = model.embed_text(torch.ones((rows, length), dtype=torch.int64, device="cuda"))
    with torch.inference_mode():
        model.backbone(inputs_embeds=embeddings, use_cache=False)  # the first pass allocates workspaces
        gc.collect()
        before = torch.cuda.memory_allocated()
        cache = model.backbone(inputs_embeds=embeddings, use_cache=True).past_key_values
    taken = torch.cuda.memory_allocated() - before
    predicted = model.memory.cache * rows * length
    assert cache.get_seq_length() == length
    assert predicted <= taken <= 1.1 * predicted
