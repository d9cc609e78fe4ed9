"""Pictures from outside: bounded before they are read and before they are decoded, and never outside the folder."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ospo_core.sharing.sources import Rejected, SourcePicture

MOST_BYTES = 32 * 2**20
MOST_PIXELS = 50_000_000
"""Of a picture before it is resized; a choice: more than cameras and models make."""
_FORMATS = ("PNG", "JPEG", "WEBP")
_DAMAGE = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)
"""What Pillow raises on bytes that are not a picture of one of these formats; SyntaxError is its PNG reader's."""


def picture_bytes(picture: SourcePicture | str, folder: Path) -> bytes:
    """Return the encoded bytes of a picture of a row; file names are relative to `folder`, which is resolved.

    Raises:
        Rejected: there are none, they are too many, or the file is outside the folder.
    """
    found = SourcePicture(path=picture) if isinstance(picture, str) else picture
    if found.data is not None:
        if len(found.data) > MOST_BYTES:
            raise Rejected("picture_too_large", f"{len(found.data)} bytes; at most {MOST_BYTES}")
        return found.data
    if not found.path:
        raise Rejected("picture_missing", "neither bytes nor the name of a file")
    try:
        path = (folder / found.path).resolve()
        if not path.is_relative_to(folder):
            raise Rejected("picture_outside", f"{found.path!r} is not inside the folder")
        if not path.is_file():
            raise Rejected("picture_missing", f"there is no file {found.path!r}")
        if path.stat().st_size > MOST_BYTES:
            raise Rejected("picture_too_large", f"{found.path!r} has more than {MOST_BYTES} bytes")
        return path.read_bytes()
    except (OSError, ValueError, RuntimeError) as error:  # a null byte is a ValueError, a loop of links a RuntimeError
        raise Rejected("picture_missing", f"{found.path!r} cannot be read: {error}") from None


def decoded(data: bytes) -> tuple[NDArray[np.uint8], bool]:
    """Return a picture `uint8 [H, W, 3]`, turned as its camera says, and whether the bytes are a plain RGB PNG.

    Raises:
        Rejected: it is not a PNG, JPEG or WebP, or has too many pixels.
    """
    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise Rejected("picture_too_large", f"{image.width} x {image.height} pixels; at most {MOST_PIXELS}")
            plain = image.format == "PNG" and image.mode == "RGB"
            turned = ImageOps.exif_transpose(image)
            return np.asarray(turned.convert("RGB")), plain
    except _DAMAGE as error:
        raise Rejected("picture_unreadable", f"not a PNG, JPEG or WebP: {error}") from None
