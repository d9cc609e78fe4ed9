"""Batches are halved where memory runs out, and nothing else changes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
import torch

from ospo_core.errors import ModelError
from ospo_core.models.base import UnifiedModel
from ospo_core.models.batching import HALVINGS, SMALL, Batching, is_out_of_memory
from ospo_core.models.logprobs import mean_logprob
from ospo_core.models.pictures import decode_tokens
from ospo_core.models.sampling import sample_images
from ospo_core.models.vqa import answer_questions
from tests.support.tiny_janus import load_tiny_janus, make_tiny_janus

PROMPTS = ("a red circle", "a blue star", "two green squares", "a star", "a circle", "a red square")
SIZE = len(PROMPTS)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> UnifiedModel:
    return load_tiny_janus(make_tiny_janus(tmp_path_factory.mktemp("janus") / "model"))


@pytest.fixture(autouse=True)
def forget(model: UnifiedModel) -> None:
    """Start every test with a model whose memory has always sufficed."""
    model.batching = Batching(model.device, model.dtype, SMALL)


@pytest.fixture
def small_memory(model: UnifiedModel) -> Iterator[Callable[[int], None]]:
    """Make the real language model run out of memory above so many rows, as CUDA does."""
    hooks = []

    def limit(rows: int) -> None:
        def check(module: torch.nn.Module, args: tuple[object, ...], given: dict[str, torch.Tensor]) -> None:
            packed = "owners" in given  # one sequence, whose rows are those of its places
            if (given["attention_mask"].shape[2] if packed else len(given["inputs_embeds"])) > rows:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

        hooks.append(model.backbone.register_forward_pre_hook(check, with_kwargs=True))

    yield limit
    for hook in hooks:
        hook.remove()


@pytest.fixture
def two_cores() -> Iterator[None]:
    """Let torch use two threads, so that two batches of a small model are computed side by side."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def rendered(model: UnifiedModel) -> np.ndarray:
    return sample_images(model, PROMPTS, range(SIZE), 2.0, 1.0, SIZE).tokens


def batches(sizes: Sequence[int], batch_size: int) -> list[slice]:
    return [
        part for part, _ in Batching(torch.device("cpu"), torch.float32, SMALL).run("x", sizes, batch_size, lambda _: 0)
    ]


def test_batches_cover_every_item_once() -> None:
    assert batches([1] * 5, 2) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert batches([], 2) == []


def test_batches_hold_at_most_their_size_or_one_item() -> None:
    assert batches([2, 2, 1, 9, 1], 4) == [slice(0, 2), slice(2, 3), slice(3, 4), slice(4, 5)]


def test_sampling_goes_on_with_half_the_batch_and_draws_the_same(
    model: UnifiedModel, small_memory: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    undisturbed = rendered(model)
    model.batching.take_figures()
    small_memory(4)  # two rows per image: conditional and not
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(rendered(model), undisturbed)
        assert np.array_equal(rendered(model), undisturbed)
    assert [record.getMessage() for record in caplog.records] == [
        "Out of memory while sampling a batch of 6; continuing with 3",
        "Out of memory while sampling a batch of 3; continuing with 1",
    ], "the size is remembered, so the second call meets no error"
    counts, facts = model.batching.take_figures()
    assert counts == {HALVINGS: 2}
    assert facts["batches"] == {"device": "cpu", "dtype": "float32", "sizes": {"sampling": 1}}
    assert model.batching.take_figures() == ({}, {})


def test_answers_and_log_probabilities_are_the_same_with_little_memory(
    model: UnifiedModel, small_memory: Callable[[int], None]
) -> None:
    tokens = rendered(model)
    pictures = decode_tokens(model, tokens)
    questions = [["is there a red circle ?"], [], ["is there a star ?"] * 3, ["is there a square ?"]] + [["red ?"]] * 2

    def judged() -> tuple[list[list[tuple[float, float]]], np.ndarray]:
        return answer_questions(model, pictures, questions, SIZE), mean_logprob(model, PROMPTS, tokens, SIZE)

    answers, logprobs = judged()
    model.batching.take_figures()
    small_memory(3)
    fewer_answers, fewer_logprobs = judged()
    assert np.allclose(logprobs, fewer_logprobs, atol=1e-6)
    for some, others in zip(answers, fewer_answers, strict=True):
        assert np.allclose(np.array(some), np.array(others), atol=1e-6)
    assert model.batching.take_figures()[1]["batches"]["sizes"] == {"answering": 2, "scoring": 3}, (
        "5 different questions, 6 images"
    )


def test_decoding_is_halved_where_the_cpu_has_no_memory(model: UnifiedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = rendered(model)
    undisturbed, decode = decode_tokens(model, tokens), model.decode_image

    def short_of_memory(codes: torch.Tensor) -> torch.Tensor:
        if len(codes) > 2:
            torch.empty(2**55)  # more than any machine has
        return decode(codes)

    monkeypatch.setattr(model, "decode_image", short_of_memory)
    assert np.abs(decode_tokens(model, tokens).astype(int) - undisturbed).max() <= 1, "rounding to uint8"
    assert model.batching.take_figures()[0] == {HALVINGS: 2}


def test_memory_too_small_for_one_item_is_an_error_that_no_retry_repeats(
    model: UnifiedModel, small_memory: Callable[[int], None]
) -> None:
    small_memory(1)
    with pytest.raises(ModelError, match=r"model\.device: out of memory while sampling a batch of one item"):
        rendered(model)


def test_other_errors_are_not_taken_for_missing_memory(model: UnifiedModel) -> None:
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert is_out_of_memory(MemoryError())

    def wrong(part: slice) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        list(model.batching.run("sampling", [1, 1], 2, wrong))


@pytest.mark.usefixtures("two_cores")
def test_batches_of_a_small_model_are_computed_side_by_side_in_their_order() -> None:
    met = threading.Barrier(2)

    def both(part: slice) -> tuple[int, int]:
        met.wait(timeout=30)  # a batch alone would wait in vain
        return part.start, torch.get_num_threads()

    small = Batching(torch.device("cpu"), torch.float32, SMALL)
    assert [made for _, made in small.run("x", [1] * 8, 2, both)] == [(0, 1), (2, 1), (4, 1), (6, 1)]
    assert torch.get_num_threads() == 2, "as before"


@pytest.mark.usefixtures("two_cores")
@pytest.mark.parametrize(
    ("device", "parameters", "items", "alone"),
    [("cpu", SMALL + 1, 4, False), ("cuda", SMALL, 4, False), ("cpu", SMALL, 2, False), ("cpu", SMALL, 4, True)],
    ids=["large", "on a GPU", "one batch", "alone"],
)
def test_other_batches_are_computed_one_after_the_other_by_all_cores(
    device: str, parameters: int, items: int, alone: bool
) -> None:
    def where(part: slice) -> tuple[threading.Thread, int]:
        return threading.current_thread(), torch.get_num_threads()

    batching = Batching(torch.device(device), torch.float32, parameters)
    made = [result for _, result in batching.run("x", [1] * items, 2, where, alone=alone)]
    assert set(made) == {(threading.current_thread(), 2)}


@pytest.mark.usefixtures("two_cores")
def test_side_by_side_or_not_the_results_are_the_same(model: UnifiedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    questions = [["is there a red circle ?", "is there a star ?"]] * SIZE

    def everything() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        tokens = sample_images(model, PROMPTS, range(SIZE), 2.0, 1.0, 1).tokens
        pictures = decode_tokens(model, tokens, 1)
        answers = answer_questions(model, pictures, questions, 2, lambda index, given: ["is there a square ?"])
        return tokens, pictures, np.array(answers), mean_logprob(model, PROMPTS, tokens, 1)

    side_by_side = everything()
    monkeypatch.setattr(f"{Batching.__module__}.LANES", 1)
    tokens, pictures, answers, logprobs = everything()
    assert np.array_equal(side_by_side[0], tokens)
    assert np.abs(side_by_side[1].astype(int) - pictures).max() <= 1, "rounding to uint8"
    assert np.allclose(side_by_side[2], answers, atol=1e-5)
    assert np.allclose(side_by_side[3], logprobs, atol=1e-6)


@pytest.mark.usefixtures("two_cores")
def test_side_by_side_the_batch_is_halved_too_and_nothing_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    def small_only(part: slice) -> list[int]:
        if part.stop - part.start > 2:
            raise torch.OutOfMemoryError("out of memory")
        return list(range(part.start, part.stop))

    batching = Batching(torch.device("cpu"), torch.float32, SMALL)
    found = [item for _, made in batching.run("x", [1] * 19, 8, small_only) for item in made]
    assert found == list(range(19))
    assert batching.take_figures()[0] == {HALVINGS: 2}
