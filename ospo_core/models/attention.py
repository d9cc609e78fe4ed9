"""Object masks: which image tokens attend to the prompt's object nouns (docs/method.md, section 4.2).

Teacher-forced attention from image tokens to a noun's tokens, mean over heads and middle layers; min-max to [0, 1];
kept where it reaches 0.8 of Otsu's threshold; union over nouns; Gaussian 5x5, sigma 1; min-max again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel

from ospo_core.errors import ModelError
from ospo_core.models.base import UnifiedModel
from ospo_core.models.logprobs import at_offsets, run_image_sequence
from ospo_core.models.sequences import pad_left

OTSU_SHARE = 0.8
_KERNEL_RADIUS, _SIGMA = 2, 1.0
_FLAT = 1e-9
Floats = NDArray[np.float64]


def minmax(values: Floats) -> Floats:
    """Scale values to [0, 1]; a constant has nothing to scale and is only clipped, so all ones stay all ones."""
    low, high = float(values.min()), float(values.max())
    if high - low <= _FLAT * max(abs(high), abs(low), _FLAT):
        return np.clip(values, 0.0, 1.0)
    return (values - low) / (high - low)


def otsu(values: Floats) -> float:
    """Return the threshold that splits values into two classes of largest between-class variance.

    Exact over the values themselves (no histogram): the middle between the two neighbours that it separates. Of a
    constant it is that constant. N. Otsu, A threshold selection method from gray-level histograms, 1979.
    """
    ordered = np.sort(values, axis=None).astype(np.float64)
    count = len(ordered)
    below = np.arange(1, count)
    cuts = np.flatnonzero(np.diff(ordered) > 0)
    if not len(cuts):
        return float(ordered[0])
    sums = np.cumsum(ordered)[:-1]
    difference = sums / below - (ordered.sum() - sums) / (count - below)
    variance = below * (count - below) * difference**2
    best = cuts[np.argmax(variance[cuts])]
    return float((ordered[best] + ordered[best + 1]) / 2)


def smooth(mask: Floats) -> Floats:
    """Blur a raster `[R, C]` with a Gaussian of 5x5 and sigma 1; the border is continued, so that ones stay ones."""
    offsets = np.arange(-_KERNEL_RADIUS, _KERNEL_RADIUS + 1)
    kernel = np.exp(-(offsets**2) / (2 * _SIGMA**2))
    kernel /= kernel.sum()
    padded = np.pad(mask.astype(np.float64), _KERNEL_RADIUS, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (len(kernel), len(kernel)))
    blurred: Floats = np.einsum("ijkl,k,l->ij", windows, kernel, kernel)
    return blurred


def mask_of_maps(maps: Sequence[Floats], rows: int, columns: int) -> NDArray[np.float32]:
    """Turn one attention map `[T]` per noun into an object mask `[T]` in [0, 1]; without a map it is all ones."""
    if not maps:
        return np.ones(rows * columns, dtype=np.float32)
    union = np.zeros(rows * columns)
    for scaled in map(minmax, maps):
        union = np.maximum(union, scaled >= OTSU_SHARE * otsu(scaled))
    mask: NDArray[np.float32] = minmax(smooth(union.reshape(rows, columns))).reshape(-1).astype(np.float32)
    return mask


def middle_layers(depth: int) -> range:
    """Return the layers averaged over: of 30 those from 5 to 24 (paper), of other depths the same share."""
    edge = depth // 6
    return range(edge, depth - edge)


@torch.inference_mode()
def object_masks(
    model: UnifiedModel,
    prompts: Sequence[str],
    nouns: Sequence[Sequence[str]],
    tokens: NDArray[np.integer],
    batch_size: int = 16,
) -> NDArray[np.float32]:
    """Return the object mask of every image, `float32 [N, T]` in [0, 1].

    Args:
        prompts: `N` plain prompts.
        nouns: the prompt's object nouns; found as whole words, singular or plural. One that is not found is omitted;
            where none is found the mask is all ones, which weighs every token alike.
        tokens: `[N, T]`, the images.
        batch_size: images per forward pass.

    Raises:
        ValueError: prompts, nouns and images differ in number.
        ModelError: the model's tokens have no place in the picture.
    """
    if not len(prompts) == len(nouns) == len(tokens):
        raise ValueError(f"{len(prompts)} prompts, {len(nouns)} lists of nouns, {len(tokens)} images")
    rows, columns = model.geometry.rows, model.geometry.columns
    if rows is None or columns is None:
        raise ModelError(
            "image tokens have no place in the picture, so there are no object masks",
            field="model.path",
            value=str(model.folder),
            remedy="Set training.loss.object_weight=0",
        )
    masks = np.empty((len(prompts), rows * columns), dtype=np.float32)

    def mask(part: slice) -> list[NDArray[np.float32]]:
        texts = [model.generation_text(prompt) for prompt in prompts[part]]
        encoded = model.tokenizer(texts, padding=False, return_offsets_mapping=True)
        codes = torch.from_numpy(np.asarray(tokens[part]).astype(np.int64))
        attention = _attention_to_prompt(model, encoded["input_ids"], codes)
        found: list[NDArray[np.float32]] = []
        for row, (prompt, text) in enumerate(zip(prompts[part], texts, strict=True)):
            offsets = encoded["offset_mapping"][row]
            padding = attention.shape[-1] - len(offsets)
            places = noun_places(text, prompt, nouns[part.start + row], offsets)
            maps = [attention[row][:, [padding + place for place in noun]].mean(axis=1) for noun in places]
            found.append(mask_of_maps(maps, rows, columns))
        return found

    for part, made in model.batching.run("masking", [1] * len(prompts), batch_size, mask, alone=True):
        masks[part] = made
    return masks


def noun_places(text: str, prompt: str, nouns: Sequence[str], offsets: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Return for each noun that `prompt` has the places of its tokens in the tokenized `text`.

    Args:
        text: the whole text, which holds the prompt.
        prompt: where nouns are looked for.
        nouns: words or phrases, any case, singular.
        offsets: for each token the characters `[start, end)` of `text` that it covers.
    """
    start = text.index(prompt)
    found: list[list[int]] = []
    for noun in nouns:
        pattern = re.compile(rf"(?<!\w){re.escape(noun)}(?:s|es)?(?!\w)", re.IGNORECASE)
        spans = [(start + match.start(), start + match.end()) for match in pattern.finditer(prompt)]
        places = [
            place
            for place, (first, last) in enumerate(offsets)
            if any(first < end and last > begin for begin, end in spans)
        ]
        if places:
            found.append(places)
    return found


def _attention_to_prompt(model: UnifiedModel, rows: Sequence[Sequence[int]], tokens: torch.Tensor) -> Floats:
    """Return the attention of image tokens to prompt positions, mean over heads and layers, `[B, T, L]`."""
    ids, mask = pad_left(rows, model.pad_id)
    ids, mask, tokens = ids.to(model.device), mask.to(model.device), tokens.to(model.device)
    every: Any = model.backbone.layers
    layers = [every[index].self_attn for index in middle_layers(len(every))]
    with _recorded(model.backbone, layers, ids.shape[1]) as collected:
        run_image_sequence(model, ids, mask, tokens)
    at_tokens = at_offsets(collected[0], 0, model.token_offsets(tokens.shape[1]))
    mean: Floats = (at_tokens / len(layers)).double().cpu().numpy()
    return mean


@contextmanager
def _recorded(backbone: PreTrainedModel, layers: Sequence[nn.Module], length: int) -> Iterator[list[torch.Tensor]]:
    """Sum the layers' head-mean attention `[B, P, L]` into the yielded list's one element while the block runs.

    Only the plain attention implementation gives weights, so it is switched on for the block. Each layer's weights are
    added up at once: holding them all would take gigabytes for a large model.
    """
    total: list[torch.Tensor] = []

    def add(_module: nn.Module, _inputs: tuple[Any, ...], outputs: tuple[torch.Tensor, torch.Tensor]) -> None:
        part = outputs[1][:, :, length:, :length].float().mean(dim=1)
        total[:] = [total[0] + part] if total else [part]

    before = backbone.config._attn_implementation
    backbone.set_attn_implementation("eager")
    handles = [layer.register_forward_hook(add) for layer in layers]
    try:
        yield total
    finally:
        for handle in handles:
            handle.remove()
        backbone.set_attn_implementation(before)
