from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ospo_core.models import batching, sampling
from ospo_core.models.decoder import LlamaDecoder
from ospo_core.models.janus.model import JanusModel
from ospo_core.models.logprobs import image_token_logprobs, mean_logprob
from ospo_core.models.sampling import guide, sample_images
from tests.support.tiny_janus import load_tiny_janus

SEEDS = [11, 12, 13, 2**64 - 1]


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_batch_size_changes_neither_tokens_nor_log_probabilities(
    tiny: JanusModel, prompts: list[str], guidance: float
) -> None:
    alone = sample_images(tiny, prompts, SEEDS, guidance, 1.0, batch_size=1)
    together = sample_images(tiny, prompts, SEEDS, guidance, 1.0, batch_size=4)
    assert alone.tokens.dtype == np.uint16
    assert alone.tokens.shape == (4, 16)
    assert np.array_equal(alone.tokens, together.tokens)
    assert np.allclose(alone.mean_logprob, together.mean_logprob, atol=1e-5)


def test_order_of_prompts_changes_no_image(tiny: JanusModel, prompts: list[str]) -> None:
    forward = sample_images(tiny, prompts, SEEDS, 2.0, 1.0, batch_size=3)
    backward = sample_images(tiny, prompts[::-1], SEEDS[::-1], 2.0, 1.0, batch_size=3)
    assert np.array_equal(forward.tokens, backward.tokens[::-1])


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_log_probability_at_sampling_is_the_teacher_forced_one(
    tiny: JanusModel, prompts: list[str], guidance: float
) -> None:
    drawn = sample_images(tiny, prompts, SEEDS, guidance, 0.8, batch_size=4)
    assert np.allclose(drawn.mean_logprob, mean_logprob(tiny, prompts, drawn.tokens, batch_size=3), atol=1e-5)


def test_guidance_one_equals_both_halves_combined_by_one() -> None:
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(guide(logits, 1.0), logits[:3], atol=1e-6)
    assert guide(logits, 0.0).equal(logits[3:])
    assert torch.allclose(guide(logits, 5.0), logits[3:] + 5 * (logits[:3] - logits[3:]))


def test_guidance_one_samples_what_the_guided_path_samples(tiny: JanusModel, prompts: list[str]) -> None:
    without = sample_images(tiny, prompts, SEEDS, 1.0, 1.0, batch_size=4)
    guided = sample_images(tiny, prompts, SEEDS, 1.0 + 1e-7, 1.0, batch_size=4)
    assert np.array_equal(without.tokens, guided.tokens)


def test_same_seed_same_prompt_gives_the_same_image_and_another_seed_another(tiny: JanusModel) -> None:
    drawn = sample_images(tiny, ["a star"] * 3, [1, 1, 2], 1.0, 1.0, batch_size=3).tokens
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_drawn_tokens_follow_the_softmax(tiny: JanusModel) -> None:
    count = 4000
    first = sample_images(tiny, ["a star"] * count, range(count), 1.0, 2.0, batch_size=1000).tokens[:, 0]
    ids, mask = tiny.encode_prompts(["a star"])
    ids, mask = ids.expand(tiny.geometry.codes, -1), mask.expand(tiny.geometry.codes, -1)
    every = torch.arange(tiny.geometry.codes)[:, None]
    with torch.no_grad():
        chances = (image_token_logprobs(tiny, ids, mask, every)[:, 0] / 2.0).softmax(dim=0).numpy()
    observed = np.bincount(first, minlength=tiny.geometry.codes) / count
    assert np.abs(observed - chances).max() < 4 * np.sqrt(0.25 / count)


def test_nothing_asked_gives_nothing(tiny: JanusModel) -> None:
    empty = sample_images(tiny, [], [], 1.0, 1.0, batch_size=4)
    assert empty.tokens.shape == (0, 16)
    assert empty.mean_logprob.shape == (0,)


def test_prompts_without_a_seed_each_are_refused(tiny: JanusModel) -> None:
    with pytest.raises(ValueError, match="2 prompts but 1 seeds"):
        sample_images(tiny, ["a star", "a star"], [1], 1.0, 1.0, batch_size=2)


@pytest.mark.parametrize("segment", [1, 8, 128])
@pytest.mark.parametrize("batch_size", [1, 3, 4])
@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_the_project_s_own_step_draws_what_transformers_draws(
    tiny: JanusModel,
    prompts: list[str],
    monkeypatch: pytest.MonkeyPatch,
    guidance: float,
    batch_size: int,
    segment: int,
) -> None:
    monkeypatch.setattr(sampling, "SEGMENTS", {"cpu": segment})
    monkeypatch.setattr(tiny.batching, "kept", {})
    fast = sample_images(tiny, prompts, SEEDS, guidance, 1.0, batch_size)
    monkeypatch.setattr(sampling, "llama_weights", lambda backbone: None)
    monkeypatch.setattr(tiny, "code_table", lambda: None)
    plain = sample_images(tiny, prompts, SEEDS, guidance, 1.0, batch_size)
    assert np.array_equal(fast.tokens, plain.tokens)
    assert np.allclose(fast.mean_logprob, plain.mean_logprob, atol=1e-5)


def test_where_steps_are_captured_all_batches_use_those_of_the_first(
    tiny_folder: Path, prompts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The longest prompts come first, and a batch of fewer rows draws some that nobody asked for."""
    whole = sample_images(load_tiny_janus(tiny_folder), prompts, SEEDS, 2.0, 1.0, batch_size=4)
    monkeypatch.setattr(sampling, "SEGMENTS", {"cpu": 8})
    monkeypatch.setattr(batching, "LANES", 1)
    model, loops = load_tiny_janus(tiny_folder), []
    made = sampling._GraphLoop.run

    def run(self: sampling._GraphLoop, *args: Any) -> Any:
        loops.append(self)
        return made(self, *args)

    monkeypatch.setattr(sampling._GraphLoop, "run", run)
    drawn = sample_images(model, prompts, SEEDS, 2.0, 1.0, batch_size=3)
    again = sample_images(model, prompts[:1], SEEDS[:1], 2.0, 1.0, batch_size=3)
    assert len(loops) == 3 and len(set(loops)) == 1
    assert np.array_equal(drawn.tokens, whole.tokens) and np.array_equal(again.tokens, whole.tokens[:1])
    np.testing.assert_allclose(drawn.mean_logprob, whole.mean_logprob, atol=1e-5)
    sample_images(model, prompts[:1], SEEDS[:1], 3.0, 1.0, batch_size=3)
    assert len(set(loops)) == 2


@pytest.mark.parametrize("segments", [{}, {"cpu": 8}], ids=["a CPU", "as on a GPU"])
def test_memory_of_batches_of_another_kind_is_given_up_before_more_is_taken(
    tiny_folder: Path, prompts: list[str], monkeypatch: pytest.MonkeyPatch, segments: dict[str, int]
) -> None:
    monkeypatch.setattr(sampling, "SEGMENTS", segments)
    monkeypatch.setattr(batching, "LANES", 1)
    model, made = load_tiny_janus(tiny_folder), list[weakref.ref[LlamaDecoder]]()

    def make(*args: Any) -> LlamaDecoder:
        assert not [decoder for decoder in made if decoder() is not None]
        decoder = LlamaDecoder(*args)
        made.append(weakref.ref(decoder))
        return decoder

    monkeypatch.setattr(sampling, "LlamaDecoder", make)
    for guidance in (2.0, 3.0):
        sample_images(model, prompts, SEEDS, guidance, 1.0, batch_size=len(prompts))
    assert len(made) == 2


def test_memory_is_used_again_for_batches_of_the_same_kind_and_given_up_where_it_runs_out(
    tiny_folder: Path, prompts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "LANES", 1)  # side by side, the last batch to end leaves its memory
    model = load_tiny_janus(tiny_folder)
    whole = sample_images(model, prompts, SEEDS, 2.0, 1.0, batch_size=2).tokens
    kept = model.batching.kept["sampling"]
    assert np.array_equal(sample_images(model, prompts[:2], SEEDS[:2], 2.0, 1.0, batch_size=2).tokens, whole[:2])
    assert model.batching.kept["sampling"] is kept
    calls, logits = list[int](), model.image_logits

    def once_out_of_memory(states: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        calls.append(len(states))
        if len(calls) == 1:
            raise MemoryError
        return logits(states, tokens)

    monkeypatch.setattr(model, "image_logits", once_out_of_memory)
    model.batching.kept["other"] = None
    assert np.array_equal(sample_images(model, prompts[:2], SEEDS[:2], 2.0, 1.0, batch_size=2).tokens, whole[:2])
    assert list(model.batching.kept) == ["sampling"] and model.batching.kept["sampling"] is not kept
    assert model.batching.take_figures()[0] == {}, "the batch was not halved"
    model.close()
    assert not model.batching.kept
