"""The losses of pretraining: drawing, text, and looking at pictures, on one set of weights."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import JanusForConditionalGeneration

from ospo_core.shapes.batches import IGNORED, Batch


def drawing_loss(model: JanusForConditionalGeneration, batch: Batch) -> Tensor:
    """Return the cross-entropy of the image tokens after their prompts, nats a token."""
    embeddings = model.get_input_embeddings()(batch.draw_ids)
    codes = model.prepare_embeddings_for_image_generation(batch.draw_codes)
    embeddings = embeddings.masked_scatter(batch.draw_slots.unsqueeze(-1), codes.to(embeddings.dtype))
    hidden = model.model.language_model(inputs_embeds=embeddings, use_cache=False).last_hidden_state
    before = torch.roll(batch.draw_slots, -1, dims=1)
    logits = model.model.generation_head(hidden[before])
    return F.cross_entropy(logits.float(), batch.draw_codes.reshape(-1))


def answer_loss(model: JanusForConditionalGeneration, hidden: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of the labelled tokens, nats a token; hidden [N, S, H], labels [N, S]."""
    target = torch.full_like(labels, IGNORED)
    target[:, :-1] = labels[:, 1:]
    wanted = target != IGNORED
    return F.cross_entropy(model.lm_head(hidden[wanted]).float(), target[wanted])


def text_loss(model: JanusForConditionalGeneration, batch: Batch) -> Tensor:
    """Return the loss of the text tasks."""
    embeddings = model.get_input_embeddings()(batch.text_ids)
    hidden = model.model.language_model(inputs_embeds=embeddings, use_cache=False).last_hidden_state
    return answer_loss(model, hidden, batch.text_labels)


def looking_mask(segments: Tensor) -> Tensor:
    """Return what is added to the attention logits [P, 1, S, S] of packed lessons: 0 where seen, else very negative.

    Each lesson sees its picture and itself, up to its own place. Padding sees the first token only, so that no row is
    empty. The mask is additive since plain attention adds it: a boolean mask would hide nothing there.
    """
    length = segments.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    key, query = segments[:, None, :], segments[:, :, None]
    seen = causal & ((key == 0) | (key == query)) & (key >= 0)
    seen[:, :, 0] = True
    hidden = torch.finfo(torch.float32).min
    return torch.zeros(seen.shape, device=seen.device).masked_fill(~seen, hidden).unsqueeze(1)


def looking_losses(model: JanusForConditionalGeneration, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the loss of questions and captions, and that of naming the code of every cell seen.

    A picture and its placeholders are computed once for all that is asked about it. Naming the codes, with the head
    that draws them, is what gets the vision encoder going; without it, a thousand steps taught it nothing.
    """
    features = model.model.aligner(model.model.vision_model(batch.pixels).last_hidden_state)
    embeddings = model.get_input_embeddings()(batch.look_ids)
    slots = (batch.look_ids == model.config.image_token_id).unsqueeze(-1)
    embeddings = embeddings.masked_scatter(slots, features.to(embeddings.dtype))
    hidden = model.model.language_model(
        inputs_embeds=embeddings,
        attention_mask=looking_mask(batch.look_segments),
        position_ids=batch.look_positions,
        use_cache=False,
    ).last_hidden_state
    seen = model.model.generation_head(hidden[slots.squeeze(-1)])
    reading = F.cross_entropy(seen.float(), batch.look_codes.reshape(-1))
    return answer_loss(model, hidden, batch.look_labels), reading
