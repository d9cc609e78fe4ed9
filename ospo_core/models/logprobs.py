"""Log-probabilities of given image tokens: `log p(y_t | x, y_<t)` by the image head, teacher-forced.

The very same function scores images and trains on them, so gradients flow wherever autograd is on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from torch import nn
from torch.nn import functional
from transformers import JanusForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPast

from ospo_core.models.layout import batches, encode_generation, positions
from ospo_core.models.loading import LoadedModel


def janus_of(model: nn.Module) -> JanusForConditionalGeneration:
    """Return the Janus network inside `model`: itself, or what a PEFT or a data-parallel wrapper holds.

    Raises:
        TypeError: there is no Janus network in it.
    """
    inner: object = getattr(model, "module", model)
    if isinstance(inner, PeftModel):
        inner = inner.get_base_model()
    if not isinstance(inner, JanusForConditionalGeneration):
        raise TypeError(f"expected a Janus network, got {type(inner).__name__}")
    return inner


def run_image_sequence(
    model: nn.Module, input_ids: torch.Tensor, attention_mask: torch.Tensor, tokens: torch.Tensor
) -> torch.Tensor:
    """Run the language model over prompts `[B, L]` followed by image tokens `[B, S]`; return states `[B, L + S, D]`."""
    janus = janus_of(model).model
    prompt = janus.get_input_embeddings()(input_ids)
    image = janus.generation_aligner(janus.generation_embeddings(tokens)).to(prompt.dtype)
    mask = torch.cat([attention_mask, attention_mask.new_ones(tokens.shape)], dim=1)
    output: BaseModelOutputWithPast = janus.language_model(
        inputs_embeds=torch.cat([prompt, image], dim=1),
        attention_mask=mask,
        position_ids=positions(mask),
        use_cache=False,
    )
    states = output.last_hidden_state
    if states is None:
        raise TypeError("the language model returned no hidden states")
    return states


def image_token_logprobs(
    model: nn.Module, input_ids: torch.Tensor, attention_mask: torch.Tensor, tokens: torch.Tensor
) -> torch.Tensor:
    """Return the log-probability of every image token, nats, `float32 [B, T]`.

    Args:
        model: the Janus network, plain or with a PEFT adapter, on the device of the tensors.
        input_ids: `int64 [B, L]`, left-padded prompts that end in begin-of-image.
        attention_mask: `int64 [B, L]`, 0 on padding: neither attended to nor counted as a position.
        tokens: `int64 [B, T]`.
    """
    states = run_image_sequence(model, input_ids, attention_mask, tokens[:, :-1])
    logits = janus_of(model).model.generation_head(states[:, input_ids.shape[1] - 1 :]).float()
    return -functional.cross_entropy(logits.transpose(1, 2), tokens, reduction="none")


@torch.inference_mode()
def mean_logprob(
    loaded: LoadedModel, prompts: Sequence[str], tokens: NDArray[np.integer], batch_size: int
) -> NDArray[np.float64]:
    """Return `l(y|x)`, the mean log-probability of each image's tokens given its prompt, nats, `float64 [N]`.

    Args:
        loaded: the model.
        prompts: `N` plain prompts.
        tokens: `[N, T]`, one image a prompt.
        batch_size: images a forward pass; changes nothing but rounding.

    Raises:
        ValueError: prompts and images differ in number.
    """
    if len(prompts) != len(tokens):
        raise ValueError(f"{len(prompts)} prompts but {len(tokens)} images")
    means = np.empty(len(prompts), dtype=np.float64)
    for part in batches(len(prompts), batch_size):
        ids, mask = (half.to(loaded.device) for half in encode_generation(loaded, prompts[part]))
        codes = torch.from_numpy(np.asarray(tokens[part]).astype(np.int64)).to(loaded.device)
        means[part] = image_token_logprobs(loaded.model, ids, mask, codes).double().mean(dim=-1).cpu().numpy()
    return means
