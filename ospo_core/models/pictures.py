"""Pictures as people see them (uint8) to image tokens and back, in batches.

A picture that was sampled need not encode to the tokens it was sampled from: keep the sampled tokens
(docs/method.md, trap 1).
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ospo_core.artifacts.pictures import open_picture
from ospo_core.errors import ModelError
from ospo_core.models.base import UnifiedModel


def to_pixels(pictures: NDArray[np.uint8], device: torch.device | None = None) -> torch.Tensor:
    """Turn pictures `uint8 [B, H, W, 3]` into network input `float32 [B, 3, H, W]` in [-1, 1] (mean and std 0.5).

    `device` is where it is wanted and computed; the default is the CPU.
    """
    return torch.from_numpy(np.ascontiguousarray(pictures)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def from_pixels(pixels: torch.Tensor) -> NDArray[np.uint8]:
    """Turn network output `[B, 3, H, W]` in [-1, 1] into pictures `uint8 [B, H, W, 3]`; values outside are clipped."""
    scaled = ((pixels.float() + 1.0) * 127.5).round().clamp(0, 255)
    pictures: NDArray[np.uint8] = scaled.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return pictures


PIXELS_AT_ONCE = {"cpu": 2**15, "cuda": 2**23}
"""Pixels of the pictures that are encoded or decoded together, by device. On a CPU more of them only leave its cache:
with 8 pictures of 64 x 64 the embedded model decodes twice as fast as with 64 (docs/lab-notes.md)."""


PICTURES_IN_MEMORY = 256
"""Pictures of which stages hold the pixels together: several batches, sorted by what is alike among them."""


def _at_once(model: UnifiedModel) -> int:
    pixels = PIXELS_AT_ONCE.get(model.device.type, PIXELS_AT_ONCE["cuda"])
    return max(1, pixels // (model.geometry.height * model.geometry.width))


@torch.inference_mode()
def encode_pictures(model: UnifiedModel, pixels: torch.Tensor, batch_size: int | None = None) -> torch.Tensor:
    """Encode pictures `float [B, 3, H, W]` in [-1, 1] (see `to_pixels`) to tokens `int64 [B, T]` on the CPU.

    By default, as many together as suit the device (`PIXELS_AT_ONCE`).

    Raises:
        ModelError: the pictures are not of the model's size.
    """
    height, width = model.geometry.height, model.geometry.width
    if pixels.shape[1:] != (3, height, width):
        raise ModelError(
            f"pictures must be [B, 3, {height}, {width}]",
            field="pixels",
            value=tuple(pixels.shape),
            remedy="Resize them first",
        )
    rows, size = [torch.empty((0, model.geometry.tokens), dtype=torch.int64)], batch_size or _at_once(model)

    def encode(part: slice) -> torch.Tensor:
        return model.encode_image(pixels[part].to(model.device, model.dtype)).cpu()

    rows += [codes for _, codes in model.batching.run("encoding", [1] * len(pixels), size, encode)]
    return torch.cat(rows)


@torch.inference_mode()
def decode_tokens(
    model: UnifiedModel, tokens: torch.Tensor | NDArray[np.integer], batch_size: int | None = None
) -> NDArray[np.uint8]:
    """Decode image tokens `[B, T]` to pictures `uint8 [B, H, W, 3]`; the same tokens are decoded once.

    `batch_size` are decoded together, by default as many as suit the device (`PIXELS_AT_ONCE`).

    Raises:
        ModelError: a wrong number of tokens, or a token outside the codebook.
    """
    geometry = model.geometry
    codes = torch.as_tensor(np.asarray(tokens).astype(np.int64))
    if codes.ndim != 2 or codes.shape[1] != geometry.tokens:
        raise ModelError(f"tokens must be [B, {geometry.tokens}]", field="tokens", value=tuple(codes.shape))
    if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < geometry.codes:
        raise ModelError(f"tokens must lie in [0, {geometry.codes})", field="tokens", value=int(codes.max()))
    pictures: list[NDArray[np.uint8]] = [np.empty((0, geometry.height, geometry.width, 3), dtype=np.uint8)]
    distinct, rows = codes.unique(dim=0, return_inverse=True) if len(codes) else (codes, codes[:, 0])

    def decode(part: slice) -> NDArray[np.uint8]:
        return from_pixels(model.decode_image(distinct[part].to(model.device)))

    size = batch_size or _at_once(model)
    pictures += [picture for _, picture in model.batching.run("decoding", [1] * len(distinct), size, decode)]
    return np.concatenate(pictures)[rows.numpy()]


def encode_png(picture: NDArray[np.uint8]) -> bytes:
    """Return the picture `uint8 [H, W, 3]` (RGB) as PNG; zlib releases the interpreter lock, so threads help.

    Compression 1 takes a third of the time of the usual 6, for 17 % more bytes (docs/lab-notes.md).
    """
    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def decode_png(data: bytes) -> NDArray[np.uint8]:
    """Return a PNG as a picture `uint8 [H, W, 3]` (RGB); raises StageError if it is none or too large."""
    return np.asarray(open_picture(data).convert("RGB"))


def resized(picture: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Return the picture `uint8 [H, W, 3]` at another size (bicubic); at its own size, unchanged."""
    if picture.shape[:2] == (height, width):
        return picture
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))
