"""The losses of pretraining: drawing, text, and looking at pictures, in one pass of one set of weights.

Shape letters as in `batches`; H is the hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import JanusForConditionalGeneration

from ospo_core.shapes.batches import Batch
from ospo_core.shapes.passages import NOTHING, Part


def passage_mask(passages: Tensor, segments: Tensor) -> Tensor:
    """Return what is added to the attention logits [N, 1, S, S] of packed rows: 0 where seen, else very negative.

    A token sees segment 0 of its passage and its own segment, up to its own place. Padding sees the first token only,
    so that no row is empty. The mask is additive since plain attention adds it: a boolean mask would hide nothing.
    """
    length = segments.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    key, query = segments[:, None, :], segments[:, :, None]
    seen = causal & (passages[:, None, :] == passages[:, :, None]) & ((key == 0) | (key == query))
    seen &= passages[:, None, :] != NOTHING
    seen[:, :, 0] |= passages == NOTHING
    hidden = torch.finfo(torch.float32).min
    return torch.zeros(seen.shape, device=seen.device).masked_fill(~seen, hidden).unsqueeze(1)


def embed(model: JanusForConditionalGeneration, batch: Batch) -> Tensor:
    """Return the input embeddings [N, S, H]: words, drawn codes in their slots, picture features in theirs."""
    embeddings = model.get_input_embeddings()(batch.tokens)
    drawn, seen = batch.drawn != NOTHING, batch.seen != NOTHING
    codes = model.prepare_embeddings_for_image_generation(batch.drawn[drawn])
    embeddings = embeddings.masked_scatter(drawn.unsqueeze(-1), codes.to(embeddings.dtype))
    features = model.model.aligner(model.model.vision_model(batch.pixels).last_hidden_state)
    return embeddings.masked_scatter(seen.unsqueeze(-1), features.to(embeddings.dtype))


def lesson_losses(model: JanusForConditionalGeneration, batch: Batch) -> dict[str, Tensor]:
    """Return the cross-entropies of a batch, nats a token.

    `drawing`: codes after their prompts. `text`, `caption`, `answer`: words (see `Part`). `reading`: naming, with the
    head that draws them, the codes of the cells seen; this is what gets the vision encoder going, without it a thousand
    steps taught it nothing.
    """
    hidden = model.model.language_model(
        inputs_embeds=embed(model, batch),
        attention_mask=passage_mask(batch.passages, batch.segments),
        position_ids=batch.positions,
        use_cache=False,
    ).last_hidden_state
    drawn, seen = batch.drawn != NOTHING, batch.seen != NOTHING
    named = torch.cat([hidden[torch.roll(drawn, -1, dims=1)], hidden[seen]])
    drawing, reading = model.model.generation_head(named).float().split([int(drawn.sum()), int(seen.sum())])
    losses = {
        "drawing": F.cross_entropy(drawing, batch.drawn[drawn]),
        "reading": F.cross_entropy(reading, batch.seen[seen]),
    }
    said = batch.parts != NOTHING
    words = model.lm_head(hidden[torch.roll(said, -1, dims=1)]).float()
    each, parts = F.cross_entropy(words, batch.tokens[said], reduction="none"), batch.parts[said]
    return losses | {part.name.lower(): _mean(each[parts == part]) for part in Part}


def _mean(values: Tensor) -> Tensor:
    """Return the mean, 0 where there is nothing."""
    return values.sum() / max(1, len(values))
