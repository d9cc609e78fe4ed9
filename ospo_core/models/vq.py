"""Pictures to image tokens and back.

transformers' `JanusVQVAE.encode` searches the codebook with raw latents, while its decoder normalises the codebook: the
two do not belong together. Here both latents and codebook are L2-normalised before the search, as the VQ model was
trained (LlamaGen, arXiv 2406.06525, on which Janus' tokenizer builds). A picture that was sampled need not encode to
the tokens it was sampled from: keep the sampled tokens.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from ospo_core.errors import ModelError
from ospo_core.models.layout import batches
from ospo_core.models.loading import LoadedModel, from_pixels


def nearest_codes(latents: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """Return the index of the code nearest in direction to each latent.

    For unit vectors the smallest distance is the largest dot product.

    Args:
        latents: `[..., D]`, of any length.
        codebook: `[K, D]`, of any length.

    Returns:
        `int64 [...]`.
    """
    directions = functional.normalize(latents.float(), dim=-1)
    return (directions @ functional.normalize(codebook.float(), dim=-1).T).argmax(dim=-1)


@torch.inference_mode()
def encode_pictures(loaded: LoadedModel, pixels: torch.Tensor, batch_size: int = 64) -> torch.Tensor:
    """Encode pictures to tokens.

    Args:
        loaded: the model.
        pixels: `float [B, 3, H, W]` in [-1, 1] (see `to_pixels`).
        batch_size: pictures a forward pass.

    Returns:
        `int64 [B, T]`, row-major, on the CPU.

    Raises:
        ModelError: the pictures are not of the model's size.
    """
    if pixels.shape[1:] != (3, loaded.image_size, loaded.image_size):
        raise ModelError(
            f"pictures must be [B, 3, {loaded.image_size}, {loaded.image_size}]",
            field="pixels",
            value=tuple(pixels.shape),
            remedy="Resize them first",
        )
    vq = loaded.model.model.vqmodel
    rows = [torch.empty((0, loaded.image_tokens), dtype=torch.int64)]
    for part in batches(len(pixels), batch_size):
        latents = vq.quant_conv(vq.encoder(pixels[part].to(loaded.device, loaded.dtype)))
        codes = nearest_codes(latents.permute(0, 2, 3, 1).flatten(1, 2), vq.quantize.embedding.weight)
        rows.append(codes.cpu())
    return torch.cat(rows)


@torch.inference_mode()
def decode_tokens(
    loaded: LoadedModel, tokens: torch.Tensor | NDArray[np.integer], batch_size: int = 64
) -> NDArray[np.uint8]:
    """Decode image tokens `[B, T]` to pictures `uint8 [B, H, W, 3]`, `batch_size` at a time.

    Raises:
        ModelError: a wrong number of tokens, or a token outside the codebook.
    """
    codes = torch.as_tensor(np.asarray(tokens).astype(np.int64))
    if codes.ndim != 2 or codes.shape[1] != loaded.image_tokens:
        raise ModelError(f"tokens must be [B, {loaded.image_tokens}]", field="tokens", value=tuple(codes.shape))
    if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < loaded.codes:
        raise ModelError(f"tokens must lie in [0, {loaded.codes})", field="tokens", value=int(codes.max()))
    size = loaded.image_size
    pictures: list[NDArray[np.uint8]] = [np.empty((0, size, size, 3), dtype=np.uint8)]
    for part in batches(len(codes), batch_size):
        pictures.append(from_pixels(loaded.model.model.vqmodel.decode(codes[part].to(loaded.device))))
    return np.concatenate(pictures)
