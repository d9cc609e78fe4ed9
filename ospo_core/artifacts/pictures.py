"""Open an encoded picture that somebody else has stored: its kind and its size are checked before it is decoded."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

from PIL import Image

from ospo_core.errors import StageError

KINDS = ("PNG", "WEBP", "JPEG")
"""What is read. Pillow knows many more kinds, and runs a program for some of them (Ghostscript for EPS)."""
MOST_PIXELS = 2**24
"""A few bytes may stand for gigabytes; no model here draws more than a hundredth of this."""
_ERRORS = (OSError, SyntaxError, ValueError, LookupError, OverflowError, EOFError, struct.error, zlib.error)
"""What Pillow raises for bytes that it cannot decode."""


def open_picture(data: bytes, field: str = "image", name: str | None = None) -> Image.Image:
    """Return a picture, decoded, in the form in which it was stored; `field` and `name` say where it comes from.

    Raises:
        StageError: the bytes are not a picture of a known kind, or it has more than `MOST_PIXELS` pixels.
    """
    remedy = "Recompute the stage that made it (--refresh)"
    try:
        image = Image.open(BytesIO(data), formats=KINDS)
        if image.width * image.height > MOST_PIXELS:
            raise StageError(
                f"a picture of {image.width} x {image.height} pixels; {MOST_PIXELS} are allowed",
                field=field,
                value=name,
                remedy=remedy,
            )
        image.load()
    except (*_ERRORS, Image.DecompressionBombError) as error:
        raise StageError("not a picture", field=field, value=name, remedy=remedy) from error
    return image
