"""The benchmark of a GPU at a tiny size on the CPU: every kind of point gives figures, failures cost only their own."""

from __future__ import annotations

import json
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu, gpu_points
from benchmarks.device import Limits
from benchmarks.random_janus import SIZES, byte_level_tokenizer, dense_prompts, random_janus
from ospo_core.config.sections import LoraSettings, TrainingConfig
from ospo_core.training.memory import plan_passes, training_memory

CPU, META = torch.device("cpu"), torch.device("meta")


@pytest.fixture(scope="module")
def bench() -> gpu_points.Bench:
    model = random_janus(SIZES["tiny"], CPU, torch.bfloat16)
    return gpu_points.Bench(model, Limits(1e10, 1e11), time.monotonic() + 600, time.monotonic() + 600)


@pytest.mark.parametrize(("size", "billions", "hidden"), [("1b", 2.077, 2048), ("7b", 7.408, 4096)], ids=["1b", "7b"])
def test_true_sizes_have_the_checkpoints_parameters_and_shapes(size: str, billions: float, hidden: int) -> None:
    model = random_janus(SIZES[size], META, torch.bfloat16)
    assert model.memory.parameters == pytest.approx(billions * 1e9, rel=1e-3)
    assert model.memory.weights == 2 * model.memory.parameters
    assert (model.geometry.tokens, model.geometry.codes, model.geometry.rows) == (576, 16_384, 24)
    tokens = torch.empty((2, 576), dtype=torch.int64, device=META)
    embedded = model.embed_image(tokens)
    assert embedded.shape == (2, 576, hidden) and embedded.dtype == torch.bfloat16
    assert model.image_logits(embedded, tokens).shape == (2, 576, 16_384)
    assert model.text_logits(embedded).shape == (2, 576, 102_400)
    assert model.decode_image(tokens).shape == (2, 3, 384, 384)


@pytest.mark.parametrize(
    ("size", "pairs", "recompute", "measured"),
    [
        ("7b", 2, False, 34.0),
        ("7b", 4, False, 51.8),
        ("7b", 8, True, 22.4),
        ("1b", 8, False, 33.6),
        ("1b", 16, False, 62.4),
    ],
)
def test_the_estimate_of_training_is_a_little_above_what_was_measured(
    size: str, pairs: int, recompute: bool, measured: float
) -> None:
    """Peaks of tensors on an H100 (docs/results.md)."""
    model = random_janus(SIZES[size], META, torch.bfloat16)
    options = TrainingConfig(lora=LoraSettings(rank=32, alpha=64), caption_dropout=0.0)
    assert measured < training_memory(options, model, pairs, recompute) / 1e9 < 1.06 * measured


def test_a_7b_model_fits_80_gb_at_any_batch_and_is_recomputed_on_40() -> None:
    model = random_janus(SIZES["7b"], META, torch.bfloat16)
    plans = [plan_passes(TrainingConfig(batch_size=32), model, gigabytes * 10**9) for gigabytes in (141, 85, 40)]
    assert [plan.recompute for plan in plans] == [False, False, True]
    assert plans[0].pairs > plans[1].pairs > 1 < plans[2].pairs


def test_the_tokenizer_is_byte_level_and_begins_every_text() -> None:
    tokenizer, text = byte_level_tokenizer(), dense_prompts(1)[0] + "\n\né"
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id != ids[1]
    assert tokenizer.decode(ids[1:]) == text


@pytest.mark.parametrize(
    ("measure", "rate"),
    [
        (partial(gpu_points.sampling, batch=2), "images_per_second"),
        (partial(gpu_points.published, batch=2, steps=4), "images_per_second"),
        (partial(gpu_points.decoding, batch=2), "images_per_second"),
        (partial(gpu_points.png, batch=2), "images_per_second"),
        (partial(gpu_points.answering, pictures=2), "questions_per_second"),
        (partial(gpu_points.scoring, batch=2), "sequences_per_second"),
    ],
)
def test_every_kind_of_point_gives_a_rate(bench: gpu_points.Bench, measure: Any, rate: str) -> None:
    figures = measure(bench)
    assert figures[rate] > 0
    json.dumps(figures, allow_nan=False)


def test_recomputation_changes_no_loss_and_training_leaves_no_adapter(bench: gpu_points.Bench) -> None:
    plain, recomputed = (gpu_points.training(bench, 2, recompute) for recompute in (False, True))
    assert recomputed["losses"] == pytest.approx(plain["losses"], abs=1e-3)
    assert plain["pairs_per_second"] > 0
    assert not [name for name, _ in bench.model.network.named_parameters() if "lora" in name]
    assert not bench.model.network.is_gradient_checkpointing


def test_a_profile_counts_the_operators_of_a_step(bench: gpu_points.Bench) -> None:
    figures = gpu_points.profiled_step(bench, 2)
    assert figures["operators"] > 40 * SIZES["tiny"].layers
    assert 0 < len(figures["top_by_host_time"]) <= 10


def test_sampling_stops_where_time_is_over_and_says_so(bench: gpu_points.Bench) -> None:
    late = gpu_points.Bench(bench.model, bench.limits, bench.deadline, time.monotonic() - 1)
    assert "stopped after 0 of 16 steps" in gpu_points.sampling(late, 2)["note"]


def test_a_failure_costs_only_its_own_point(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(bench: gpu_points.Bench) -> dict[str, Any]:
        raise torch.OutOfMemoryError

    def err(bench: gpu_points.Bench) -> dict[str, Any]:
        raise ValueError("odd")

    def work(bench: gpu_points.Bench) -> dict[str, Any]:
        return {"images_per_second": 2.0}

    points = [gpu.Point("sampling", name, measure) for name, measure in (("a", fail), ("b", err), ("c", work))]
    monkeypatch.setattr(gpu, "_points", lambda: points)
    out = tmp_path / "report.json"
    report = gpu.run(["tiny"], ["sampling"], CPU, 5.0, out)
    assert [p["status"] for p in report["points"]] == ["out of memory", "failed: ValueError: odd", "ok"]
    assert json.loads(out.read_text(encoding="utf-8")) == report
    skipped = gpu.run(["tiny"], ["sampling"], CPU, 0.0, out)
    assert {p["status"] for p in skipped["points"]} == {"skipped: out of time"}


def test_urgent_points_of_all_sizes_come_first_and_a_model_is_made_at_most_twice() -> None:
    order = gpu.ordered(["7b", "1b"], gpu.PARTS)
    assert [point.urgent for _, point in order] == sorted((point.urgent for _, point in order), reverse=True)
    sizes = [size for size, _ in order]
    assert sum(before != after for before, after in pairwise(sizes)) == 2
    assert order[0][0] == "7b" and order[0][1].name == "sampling, batch 64"
