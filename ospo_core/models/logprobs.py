"""Log-probabilities of given image tokens: `log p(y_t | x, y_<t)`, teacher-forced.

The very same function scores images and trains on them, so gradients flow wherever autograd is on. Logits of all
images at once would take more memory than anything else (Janus-Pro: 38 MB per image in float32, several times over with
gradients), so they are computed in parts, and each part's gradient with it: a log-probability is one number per state,
so its gradient is one vector per state, and the logits are not needed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ospo_core.models.base import UnifiedModel
from ospo_core.models.packing import Packing, pack, packed_attention, run_packed
from ospo_core.models.sequences import batches, by_length, positions

LOGITS_AT_ONCE = 2**25
"""Most logits that exist at a time (rows x tokens x codes), unless one row alone has more: 134 MB in float32."""
_SEEN_AT_ONCE = 2**22
"""Most logits that are looked at together in float32 for their sums and gradients."""


def run_image_sequence(
    model: UnifiedModel, input_ids: torch.Tensor, attention_mask: torch.Tensor, tokens: torch.Tensor
) -> torch.Tensor:
    """Run the language model over prompts `[B, L]` followed by image tokens `[B, S]`; return states `[B, L + P, D]`."""
    prompt = model.embed_text(input_ids)
    image = model.embed_image(tokens).to(prompt.dtype)
    mask = torch.cat([attention_mask, attention_mask.new_ones(image.shape[:2])], dim=1)
    output = model.backbone(
        inputs_embeds=torch.cat([prompt, image], dim=1),
        attention_mask=mask,
        position_ids=positions(mask),
        use_cache=False,
    )
    states: torch.Tensor = output.last_hidden_state
    return states


def at_offsets(values: torch.Tensor, first: int, offsets: Sequence[int]) -> torch.Tensor:
    """Return `values[:, first + offset]` for each offset; a view where the offsets are consecutive."""
    if offsets == range(len(offsets)):
        return values[:, first : first + len(offsets)]
    return values[:, [first + offset for offset in offsets]]


def image_token_logprobs(
    model: UnifiedModel,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    tokens: torch.Tensor,
    packing: Packing | None = None,
) -> torch.Tensor:
    """Return the log-probability of every image token, nats, `float32 [B, T]`.

    How many rows share a part of the logits changes nothing but rounding.

    Args:
        model: the model, with an adapter or without, on the device of the tensors.
        input_ids: `int64 [B, L]`, left-padded prompts (see `UnifiedModel.encode_prompts`).
        attention_mask: `int64 [B, L]`, 0 on padding: neither attended to nor counted as a position.
        tokens: `int64 [B, T]`.
        packing: `pack` of these rows on their device, if it is at hand: to make it, ids and tokens are read back.
    """
    before = tokens[:, :-1]
    if packing is None:
        packing = pack(model, input_ids, attention_mask, tokens).to(tokens.device)
    states = run_packed(model, packing, input_ids, before)
    parts = batches(len(tokens), rows_at_once(tokens.shape[1], model.geometry.codes))
    found: list[torch.Tensor] = []
    for part in parts:
        places = packing.predicting[part]
        predicting = states.index_select(0, places.flatten()).unflatten(0, places.shape)
        found.append(_OfStates.apply(predicting, model, before[part], tokens[part]))
    return torch.cat(found)


def rows_at_once(tokens: int, codes: int) -> int:
    """Return how many images share a part of the logits."""
    return max(1, LOGITS_AT_ONCE // (tokens * codes))


class _OfStates(torch.autograd.Function):
    """Log-probabilities `float32 [B, T]` of tokens from the states `[B, T, D]` that predict them.

    The gradient for the states is computed at once; whatever makes logits of them is frozen.
    """

    @staticmethod
    def forward(
        ctx: Any, states: torch.Tensor, model: UnifiedModel, before: torch.Tensor, tokens: torch.Tensor
    ) -> torch.Tensor:
        wanted = states.requires_grad
        with torch.set_grad_enabled(wanted):
            given = states.detach().requires_grad_(wanted)
            logprobs: torch.Tensor = _Chosen.apply(model.image_logits(given, before).flatten(0, 1), tokens.flatten())
            if wanted:
                ctx.save_for_backward(*torch.autograd.grad(logprobs.sum(), given))
        return logprobs.detach().view_as(tokens)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (slopes,) = ctx.saved_tensors
        return (slopes * gradients[0][..., None]).to(slopes.dtype), None, None, None


class _Chosen(torch.autograd.Function):
    """`logits[i, chosen[i]] - logsumexp(logits[i])` in float32; of the logits there is never a second copy.

    The backward pass puts the gradient where the logits were, so it can run only once.
    """

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        normaliser = torch.cat([part.float().logsumexp(dim=1) for part in logits.split(_rows_of(logits))])
        ctx.save_for_backward(logits, chosen, normaliser)
        return logits.gather(1, chosen[:, None])[:, 0].float() - normaliser

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        logits, chosen, normaliser = ctx.saved_tensors
        rows = range(0, len(logits), size := _rows_of(logits))
        for part in (slice(start, start + size) for start in rows):
            grown, slope = logits[part], gradients[0][part, None]
            chances = torch.exp(grown.float() - normaliser[part, None]).mul_(-slope)
            grown.copy_(chances.scatter_add_(1, chosen[part, None], slope))
        return logits, None


def _rows_of(logits: torch.Tensor) -> int:
    """Return how many rows of logits are looked at together in float32."""
    return max(1, _SEEN_AT_ONCE // logits.shape[1])


@torch.inference_mode()
def mean_logprob(
    model: UnifiedModel, prompts: Sequence[str], tokens: NDArray[np.integer], batch_size: int
) -> NDArray[np.float64]:
    """Return `l(y|x)`, the mean log-probability of each image's tokens given its prompt, nats, `float64 [N]`.

    Args:
        prompts: `N` plain prompts.
        tokens: `[N, T]`, one image per prompt.
        batch_size: images per forward pass, fewer where memory runs out; changes nothing but rounding.

    Raises:
        ValueError: prompts and images differ in number.
    """
    if len(prompts) != len(tokens):
        raise ValueError(f"{len(prompts)} prompts but {len(tokens)} images")
    means = np.empty(len(prompts), dtype=np.float64)
    order = np.array(by_length(prompts), dtype=np.int64)

    def score(part: slice) -> torch.Tensor:
        rows = order[part]
        ids, mask = (half.to(model.device) for half in model.encode_prompts([prompts[row] for row in rows]))
        codes = torch.from_numpy(np.asarray(tokens[rows]).astype(np.int64)).to(model.device)
        return image_token_logprobs(model, ids, mask, codes).double().mean(dim=-1)

    with packed_attention(model.backbone):  # for all batches, which may be computed side by side
        for part, mean in model.batching.run("scoring", [1] * len(prompts), batch_size, score):
            means[order[part]] = mean.cpu().numpy()
    return means
