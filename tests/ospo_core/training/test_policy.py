"""The network in training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ospo_core.config.sections import LoraSettings, LossConfig, TrainingConfig
from ospo_core.models import logprobs
from ospo_core.models.janus.model import JanusModel
from ospo_core.models.logprobs import mean_logprob
from ospo_core.training.data import PairData
from ospo_core.training.policy import Policy, batch_loss, build_policy, seeded, trainable
from tests.ospo_core.training.jobs import config
from tests.support.tiny_janus import CODES, TOKENS, load_tiny_janus

NO_DROPOUT = LoraSettings(rank=4, alpha=8, dropout=0.0)


def perturbed_policy(loaded: JanusModel, options: TrainingConfig, recompute: bool = False) -> Policy:
    """Return a policy whose adapter already does something."""
    policy = build_policy(loaded, options, 0, recompute)
    with seeded(loaded.device, "test"), torch.no_grad():
        for parameter in trainable(policy).values():
            parameter.normal_(std=0.1)
    return policy


def gradients(loaded: JanusModel, pairs_path: Path, **options: Any) -> dict[str, torch.Tensor]:
    """Return the gradient of one step."""
    chosen = config(lora=NO_DROPOUT, caption_dropout=0.4, loss=LossConfig(object_weight=1.0), **options)
    policy = perturbed_policy(loaded, chosen)
    data = PairData(pairs_path, loaded, chosen, seed=3)
    for part in range(chosen.accumulation):
        parts, _ = batch_loss(policy, data.micro_batch(0, part), chosen.loss)
        (parts.total / chosen.accumulation).backward()
    return {name: p.grad for name, p in trainable(policy).items() if p.grad is not None}


def test_batch_1_times_accumulation_8_gives_the_gradient_of_8_times_1(model_folder: Path, pairs_path: Path) -> None:
    single = gradients(load_tiny_janus(model_folder), pairs_path, batch_size=1, accumulation=8)
    whole = gradients(load_tiny_janus(model_folder), pairs_path, batch_size=8, accumulation=1)
    assert single.keys() == whole.keys() and len(whole) == 28
    for name, gradient in whole.items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(single[name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("at_once", [1, 2, 4])
def test_passes_add_up_to_the_micro_batch(model_folder: Path, pairs_path: Path, at_once: int) -> None:
    """The same pairs, loss and gradient as all at once."""
    chosen = config(
        lora=NO_DROPOUT, batch_size=8, accumulation=1, caption_dropout=0.4, loss=LossConfig(object_weight=1.0)
    )
    policy = perturbed_policy(load_tiny_janus(model_folder), chosen)
    data = PairData(pairs_path, load_tiny_janus(model_folder), chosen, seed=3, at_once=at_once)
    results = []
    for batches in ([data.micro_batch(0, 0)], data.passes(0, 0)):
        policy.zero_grad()
        losses = [batch_loss(policy, batch, chosen.loss)[0].total * (batch.pairs / 8) for batch in batches]
        torch.stack(losses).sum().backward()
        rows = torch.cat([batch.tokens[: batch.pairs] for batch in batches]).tolist()
        results.append((sorted(rows), sum(losses), [weights.grad.clone() for weights in trainable(policy).values()]))
    whole, parted = results
    assert len(data.passes(0, 0)) == 8 // at_once
    assert whole[0] == parted[0]
    torch.testing.assert_close(parted[1], whole[1], rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(parted[2], whole[2], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("at_once", [2**25, 2 * TOKENS * CODES], ids=["head at once", "head in parts"])
def test_recomputation_changes_neither_loss_nor_gradient(
    model_folder: Path, pairs_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """With dropout, whose masks must be the same both times; the plain side computes all logits at once."""
    options = config(lora=LoraSettings(rank=4, alpha=8, dropout=0.3), caption_dropout=0.4)
    losses, gradients, layer_calls = [], [], []
    for recompute in (False, True):
        loaded = load_tiny_janus(model_folder)
        policy = perturbed_policy(loaded, options, recompute)
        batch = PairData(pairs_path, loaded, options, seed=3).micro_batch(0, 0)
        calls = 0

        def count(*_: object) -> None:
            nonlocal calls
            calls += 1

        loaded.backbone.layers[0].self_attn.register_forward_hook(count)
        if recompute:
            monkeypatch.setattr(logprobs, "LOGITS_AT_ONCE", at_once)
        with seeded(loaded.device, "dropout"):
            parts, _ = batch_loss(policy, batch, options.loss)
        parts.total.backward()
        losses.append(parts.total.detach())
        gradients.append({name: p.grad for name, p in trainable(policy).items()})
        layer_calls.append(calls)
    assert layer_calls == [1, 2]
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-6, atol=0.0)
    for name, gradient in gradients[0].items():
        assert gradient is not None and gradient.abs().max() > 0
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-5, atol=1e-7)


def test_a_fresh_adapter_gives_the_log_probabilities_that_scoring_gives(loaded: JanusModel, pairs_path: Path) -> None:
    options = config(caption_dropout=0.0)
    batch = PairData(pairs_path, loaded, options, seed=3).micro_batch(0, 0)
    texts = [
        loaded.tokenizer.decode([i for i in row if i != loaded.special.pad]) for row in batch.input_ids[:4].tolist()
    ]
    plain = [str(text).split(" : ", 1)[1].split(" <|Assistant|>")[0] for text in texts]
    expected = mean_logprob(loaded, plain, batch.tokens[:4].numpy(), 4)
    _, figures = batch_loss(build_policy(loaded, options, seed=0), batch, options.loss)
    assert figures["chosen_logprob"].item() == pytest.approx(expected.mean(), abs=1e-5)


def test_a_dropped_caption_leaves_the_preference_terms_as_they_are(loaded: JanusModel, pairs_path: Path) -> None:
    policy = perturbed_policy(loaded, config(lora=NO_DROPOUT))
    parts = {}
    for share in (0.0, 1.0):
        options = config(lora=NO_DROPOUT, caption_dropout=share)
        batch = PairData(pairs_path, loaded, options, seed=3).micro_batch(0, 0)
        parts[share], _ = batch_loss(policy, batch, options.loss)
    kept, dropped = parts[0.0], parts[1.0]
    for name in ("simpo", "cond", "image_margin"):
        torch.testing.assert_close(getattr(kept, name), getattr(dropped, name), rtol=1e-4, atol=1e-5)
    assert (kept.sft - dropped.sft).abs().min() > 1e-4


def test_object_weights_leave_the_sft_term_plain(model_folder: Path, pairs_path: Path) -> None:
    parts = {}
    for weight in (0.0, 1.0):
        loaded = load_tiny_janus(model_folder)
        options = config(lora=NO_DROPOUT, caption_dropout=0.4, loss=LossConfig(object_weight=weight))
        batch = PairData(pairs_path, loaded, options, seed=3).micro_batch(0, 0)
        parts[weight], _ = batch_loss(perturbed_policy(loaded, options), batch, options.loss)
    torch.testing.assert_close(parts[0.0].sft, parts[1.0].sft)
    for name in ("simpo", "cond"):
        assert (getattr(parts[0.0], name) - getattr(parts[1.0], name)).abs().max() > 1e-4


def test_only_the_adapter_of_the_language_model_is_trained(loaded: JanusModel) -> None:
    names = trainable(build_policy(loaded, config(), seed=0))
    assert names and all("lora_" in name and "language_model" in name for name in names)


def test_the_first_adapter_depends_on_the_seed_alone(model_folder: Path) -> None:
    def first(seed: int) -> torch.Tensor:
        parameters = trainable(build_policy(load_tiny_janus(model_folder), config(), seed))
        return next(value for name, value in parameters.items() if "lora_A" in name).detach()

    assert first(1).equal(first(1))
    assert not first(1).equal(first(2))


def test_seeded_noise_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    with seeded(torch.device("cpu"), "a", 1):
        first = torch.rand(3)
    with seeded(torch.device("cpu"), "a", 1):
        again = torch.rand(3)
    assert first.equal(again)
    assert torch.get_rng_state().equal(before)
