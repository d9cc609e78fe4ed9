"""The losses, worked by hand. With b = 3, g = 1.5 a gap of 0.5 gives sigmoid(0), so a loss of ln 2; so does b = 5,
g = 2.5."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ospo_core.config.sections import LossConfig
from ospo_core.training.losses import (
    conditional_loss,
    ospo_loss,
    sft_loss,
    simpo_loss,
    weighted_mean_logprob,
)

LN2 = math.log(2.0)


def t(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_simpo_is_the_log_sigmoid_of_the_gap_beyond_the_margin() -> None:
    # gap 0.5: 3 x 0.5 - 1.5 = 0. gap 1.5: 4.5 - 1.5 = 3. gap -0.5: -1.5 - 1.5 = -3.
    losses = simpo_loss(t(-2.0, -1.0, -2.5), t(-2.5, -2.5, -2.0), beta=3.0, gamma=1.5)
    expected = [LN2, math.log1p(math.exp(-3.0)), 3.0 + math.log1p(math.exp(-3.0))]
    torch.testing.assert_close(losses, t(*expected))


def test_the_conditional_loss_compares_two_prompts_of_one_image() -> None:
    torch.testing.assert_close(conditional_loss(t(-2.0), t(-2.5), beta=5.0, gamma=2.5), t(LN2))


def test_sft_is_the_negative_log_likelihood_per_token() -> None:
    torch.testing.assert_close(sft_loss(t(-2.0, -3.0)), t(2.0, 3.0))


def test_the_total_weighs_the_three_terms_as_paper_v2() -> None:
    parts = ospo_loss(t(-2.0), t(-2.5), t(-2.5), LossConfig())
    assert parts.total.item() == pytest.approx(0.8 * LN2 + 0.5 * LN2 + 1.5 * 2.0)
    assert parts.simpo is not None and parts.cond is not None
    assert (parts.simpo.item(), parts.cond.item(), parts.sft.item()) == pytest.approx((LN2, LN2, 2.0))


def test_margins_are_differences_of_rewards() -> None:
    parts = ospo_loss(t(-2.0), t(-2.5), t(-2.25), LossConfig())
    assert parts.image_margin is not None and parts.text_margin is not None
    assert parts.image_margin.item() == pytest.approx(3.0 * 0.5)
    assert parts.text_margin.item() == pytest.approx(5.0 * 0.25)


def test_the_gradient_reaches_every_log_probability_once() -> None:
    chosen, rejected, negative = (t(value).requires_grad_() for value in (-2.0, -2.5, -2.5))
    ospo_loss(chosen, rejected, negative, LossConfig()).total.backward()
    # d simpo / d chosen = -3 sigmoid(0) = -1.5; d cond / d chosen = -2.5; d sft / d chosen = -1
    assert chosen.grad is not None and rejected.grad is not None and negative.grad is not None
    assert chosen.grad.item() == pytest.approx(0.8 * -1.5 + 0.5 * -2.5 + 1.5 * -1.0)
    assert rejected.grad.item() == pytest.approx(0.8 * 1.5)
    assert negative.grad.item() == pytest.approx(0.5 * 2.5)


def test_only_the_total_carries_a_gradient() -> None:
    chosen = t(-2.0).requires_grad_()
    parts = ospo_loss(chosen, chosen - 1.0, chosen - 2.0, LossConfig())
    figures = (parts.simpo, parts.cond, parts.sft, parts.image_margin, parts.text_margin)
    assert parts.total.requires_grad
    assert not any(figure.requires_grad for figure in figures if figure is not None)


def test_object_weights_change_the_preference_terms_and_not_the_sft_term() -> None:
    # chosen tokens -1 -2 -3 -4, masked 1 1 0 0: plain -10 / 4, weighted (-2 - 4 - 3 - 4) / 6
    # rejected tokens -3 -3 -3 -5, masked 1 1 1 0: weighted (-6 - 6 - 6 - 5) / 7
    chosen, rejected = t(-1.0, -2.0, -3.0, -4.0)[None], t(-3.0, -3.0, -3.0, -5.0)[None]
    weighted = weighted_mean_logprob(chosen, t(1.0, 1.0, 0.0, 0.0)[None], 1.0)
    other = weighted_mean_logprob(rejected, t(1.0, 1.0, 1.0, 0.0)[None], 1.0)
    config = LossConfig(w_simpo=1.0, w_cond=0.0, w_sft=2.0, beta_simpo=5.0, gamma_simpo=2.5)
    parts = ospo_loss(weighted, other, None, config, sft=weighted_mean_logprob(chosen))
    gap = -13.0 / 6.0 + 23.0 / 7.0
    simpo = math.log1p(math.exp(-(5.0 * gap - 2.5)))
    assert parts.simpo is not None and parts.simpo.item() == pytest.approx(simpo)
    assert parts.sft.item() == pytest.approx(2.5)
    assert parts.total.item() == pytest.approx(simpo + 2.0 * 2.5)


def test_a_dropped_caption_changes_the_sft_term_alone() -> None:
    parts = ospo_loss(t(-2.0, -2.0), t(-2.5, -2.5), None, LossConfig(w_cond=0.0), sft=t(-2.0, -4.0))
    assert parts.sft.tolist() == [2.0, 4.0]
    assert parts.total.item() == pytest.approx(0.8 * LN2 + 1.5 * 3.0)


def test_a_term_without_weight_needs_no_log_probabilities() -> None:
    parts = ospo_loss(t(-2.0), None, None, LossConfig(w_simpo=0.0, w_cond=0.0))
    assert parts.total.item() == pytest.approx(3.0)
    assert (parts.simpo, parts.cond, parts.image_margin, parts.text_margin) == (None, None, None, None)


@pytest.mark.parametrize(("missing", "weight"), [("rejected", "w_simpo"), ("negative", "w_cond")])
def test_a_weighted_term_without_log_probabilities_is_an_error(missing: str, weight: str) -> None:
    others = {"rejected": t(-2.5), "negative": t(-2.5)} | {missing: None}
    with pytest.raises(ValueError, match=weight):
        ospo_loss(t(-2.0), others["rejected"], others["negative"], LossConfig())


def test_object_weights_count_masked_tokens_more() -> None:
    logprobs, mask = t(-1.0, -2.0, -3.0, -4.0)[None], t(1.0, 1.0, 0.0, 0.0)[None]
    # w = 2, 2, 1, 1: (-2 - 4 - 3 - 4) / 6
    torch.testing.assert_close(weighted_mean_logprob(logprobs, mask, 1.0), t(-13.0 / 6.0))


@pytest.mark.parametrize("mask", [torch.ones(1, 3), torch.zeros(1, 3), torch.full((1, 3), 0.3)])
def test_a_uniform_mask_gives_the_plain_mean(mask: torch.Tensor) -> None:
    logprobs = torch.tensor([[-1.0, -2.0, -6.0]])
    torch.testing.assert_close(weighted_mean_logprob(logprobs, mask, 1.0), torch.tensor([-3.0]))


def test_without_object_weight_or_mask_it_is_the_plain_mean() -> None:
    logprobs, mask = t(-1.0, -3.0)[None], t(1.0, 0.0)[None]
    assert weighted_mean_logprob(logprobs, mask, 0.0).item() == -2.0
    assert weighted_mean_logprob(logprobs, None, 1.0).item() == -2.0


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.floats(-12, 0), st.floats(-12, 0), st.floats(0.1, 10), st.floats(0, 5))
def test_simpo_is_positive_and_falls_as_the_gap_grows(
    chosen: float, rejected: float, beta: float, gamma: float
) -> None:
    loss = simpo_loss(t(chosen), t(rejected), beta, gamma)
    assert loss.item() >= 0
    assert simpo_loss(t(chosen + 0.1), t(rejected), beta, gamma).item() <= loss.item()
