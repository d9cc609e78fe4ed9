"""Images token by token as in Janus' published loop, and by transformers' own `generate`.

The published loop decodes conditional and unconditional rows in turn, whatever the scale of guidance, with a cache that
grows by concatenation, and draws by `torch.multinomial` from one generator (arXiv 2501.17811 and its code).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ospo_core.models.base import UnifiedModel
from ospo_core.models.janus.model import JanusModel


@torch.inference_mode()
def published_images(
    model: UnifiedModel, prompts: Sequence[str], guidance: float, batch_size: int, greedy: bool = False
) -> torch.Tensor:
    """Return image tokens `int64 [N, T]`, drawn at temperature 1, or the most probable ones if `greedy`."""
    parts = [prompts[start : start + batch_size] for start in range(0, len(prompts), batch_size)]
    return torch.cat([_published_batch(model, part, guidance, greedy) for part in parts])


def _published_batch(model: UnifiedModel, prompts: Sequence[str], guidance: float, greedy: bool) -> torch.Tensor:
    """Return the tokens of one batch; rows `0::2` are conditional, rows `1::2` unconditional."""
    ids, mask = model.encode_prompts(prompts)
    bare, bare_mask = model.unconditional(ids, mask)
    ids = torch.stack([ids, bare], dim=1).flatten(0, 1).to(model.device)
    mask = torch.stack([mask, bare_mask], dim=1).flatten(0, 1).to(model.device)
    embeddings, cache = model.embed_text(ids), None
    places = (mask.cumsum(dim=-1) - 1).clamp(min=0)
    drawn = torch.zeros((len(prompts), model.geometry.tokens), dtype=torch.int64, device=model.device)
    for step in range(model.geometry.tokens):
        output = model.backbone(
            inputs_embeds=embeddings, attention_mask=mask, position_ids=places, past_key_values=cache, use_cache=True
        )
        cache = output.past_key_values
        logits = model.image_logits(output.last_hidden_state[:, -1], drawn[:, :step])
        conditional, unconditional = logits[0::2], logits[1::2]
        logits = unconditional + guidance * (conditional - unconditional)
        chances = logits.softmax(dim=-1)
        token = chances.argmax(dim=-1) if greedy else chances.multinomial(num_samples=1)[:, 0]
        drawn[:, step] = token
        embeddings = model.embed_image(token.repeat_interleave(2)[:, None])
        mask = torch.cat([mask, mask.new_ones((len(mask), 1))], dim=1)
        places = places[:, -1:] + 1
    return drawn


@torch.inference_mode()
def transformers_images(
    model: JanusModel, prompts: Sequence[str], guidance: float, batch_size: int, greedy: bool = False
) -> torch.Tensor:
    """Return image tokens `int64 [N, T]` by transformers' own loop, which has a static cache."""
    special = model.special
    network: Any = model.network
    ends = {"bos_token_id": special.bos, "eos_token_id": special.eos, "pad_token_id": special.pad}
    network.generation_config.generation_kwargs = {"boi_token_id": special.begin_of_image}
    drawn = []
    for start in range(0, len(prompts), batch_size):
        ids, mask = (half.to(model.device) for half in model.encode_prompts(prompts[start : start + batch_size]))
        drawn.append(
            network.generate(
                ids,
                attention_mask=mask,
                generation_mode="image",
                guidance_scale=guidance,
                do_sample=not greedy,
                max_length=ids.shape[1] + model.geometry.tokens,
                **ends,
            )
        )
    return torch.cat(drawn)
