"""The losses of OSPO as pure functions of log-probabilities (arXiv 2506.02015; docs/method.md, section 4.1).

Shapes: `B` pairs, `T` image tokens. All log-probabilities are means over image tokens, in nats per token.

    simpo = -log sigmoid( b1 (l(y_w|x) - l(y_l|x))  - g1 )      same prompt, two images
    cond  = -log sigmoid( b2 (l(y_w|x) - l(y_w|x~)) - g2 )      same image, two prompts
    sft   = -l(y_w|x)
    loss  = w_simpo simpo + w_cond cond + w_sft sft

Object weights (paper v3) apply to the preference terms, `simpo` and `cond`. The `l` of `sft` is always the plain mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from ospo_core.config.sections import LossConfig


@dataclass(frozen=True)
class LossParts:
    """Losses and detached figures of a batch of `B` pairs; a part whose weight is 0 may be None.

    Attributes:
        total: `[]`, the mean weighted loss, with gradient.
        simpo, cond, sft: `[B]`, the unweighted losses, detached.
        image_margin: `[B]`, `b1 (l(y_w|x) - l(y_l|x))`: the reward of the chosen image minus that of the rejected one.
        text_margin: `[B]`, `b2 (l(y_w|x) - l(y_w|x~))`: the same for the two prompts.
    """

    total: torch.Tensor
    simpo: torch.Tensor | None
    cond: torch.Tensor | None
    sft: torch.Tensor
    image_margin: torch.Tensor | None
    text_margin: torch.Tensor | None


def weighted_mean_logprob(
    token_logprobs: torch.Tensor, mask: torch.Tensor | None = None, object_weight: float = 0.0
) -> torch.Tensor:
    """Return `l = sum_t w_t log p_t / sum_t w_t` with `w_t = 1 + a m_t` (paper v3; `a = 0` is the plain mean).

    Args:
        token_logprobs: `[B, T]`, nats.
        mask: `[B, T]` object mask `m` in [0, 1]; None weights all tokens equally.
        object_weight: `a`.

    Returns:
        `[B]`, nats per token.
    """
    if mask is None or object_weight == 0.0:
        return token_logprobs.mean(dim=-1)
    weights = 1.0 + object_weight * mask
    return (weights * token_logprobs).sum(dim=-1) / weights.sum(dim=-1)


def simpo_loss(chosen: torch.Tensor, rejected: torch.Tensor, beta: float, gamma: float) -> torch.Tensor:
    """Return the image preference `-log sigmoid(beta (l(y_w|x) - l(y_l|x)) - gamma)`, `[B]`.

    SimPO (arXiv 2405.14734, eq. 6): length-normalised, with a target margin, without a reference model.
    """
    return -functional.logsigmoid(beta * (chosen - rejected) - gamma)


def conditional_loss(chosen: torch.Tensor, negative: torch.Tensor, beta: float, gamma: float) -> torch.Tensor:
    """Return the conditional preference `-log sigmoid(beta (l(y_w|x) - l(y_w|x~)) - gamma)`, `[B]` (OSPO v2)."""
    return -functional.logsigmoid(beta * (chosen - negative) - gamma)


def sft_loss(chosen: torch.Tensor) -> torch.Tensor:
    """Return the negative log-likelihood per token of the chosen image, `-l(y_w|x)`, `[B]`."""
    return -chosen


def ospo_loss(
    chosen: torch.Tensor,
    rejected: torch.Tensor | None,
    negative: torch.Tensor | None,
    config: LossConfig,
    sft: torch.Tensor | None = None,
) -> LossParts:
    """Return the weighted loss of a batch and its parts.

    Args:
        chosen: `[B]`, `l(y_w|x)`, object-weighted if the preference terms are to be.
        rejected: `[B]`, `l(y_l|x)`, weighted like `chosen`; may be None if `w_simpo` is 0.
        negative: `[B]`, `l(y_w|x~)`, weighted like `chosen`; may be None if `w_cond` is 0.
        config: weights, `b` and `g`.
        sft: `[B]`, the plain `l(y_w|x)`, or `l(y_w)` in rows whose caption was dropped; None if it equals `chosen`.

    Raises:
        ValueError: the log-probabilities of a weighted term are missing.
    """
    likelihood = sft_loss(chosen if sft is None else sft)
    total = config.w_sft * likelihood
    image = text = None
    if rejected is not None:
        image = simpo_loss(chosen, rejected, config.beta_simpo, config.gamma_simpo)
        total = total + config.w_simpo * image
    elif config.w_simpo:
        raise ValueError("w_simpo is not 0, so log-probabilities of the rejected images are required")
    if negative is not None:
        text = conditional_loss(chosen, negative, config.beta_cond, config.gamma_cond)
        total = total + config.w_cond * text
    elif config.w_cond:
        raise ValueError("w_cond is not 0, so log-probabilities under the negative prompts are required")
    return LossParts(
        total=total.mean(),
        simpo=None if image is None else image.detach(),
        cond=None if text is None else text.detach(),
        sft=likelihood.detach(),
        image_margin=_margin(chosen, rejected, config.beta_simpo),
        text_margin=_margin(chosen, negative, config.beta_cond),
    )


def _margin(chosen: torch.Tensor, other: torch.Tensor | None, beta: float) -> torch.Tensor | None:
    """Return the detached difference of rewards, `beta (chosen - other)`, `[B]`."""
    return None if other is None else beta * (chosen.detach() - other.detach())
