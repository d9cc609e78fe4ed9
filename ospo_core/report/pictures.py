"""Encoded pictures as data URIs, so that a report is a single file."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from io import BytesIO

from PIL import Image

from ospo_core.artifacts.pictures import open_picture

_PIXEL_ART_SIDE = 128
_LARGE_BYTES = 65_536
_WEBP_QUALITY = 88
_THUMBNAIL_SIDE = 160


@dataclass(frozen=True)
class Picture:
    """A picture to show: its data URI, its size in pixels, and whether to enlarge it without smoothing."""

    uri: str
    width: int
    height: int
    pixelated: bool


def embed(data: bytes, name: str) -> Picture:
    """Return an encoded picture (PNG, WebP, JPEG) for the page; small ones unchanged, large ones as WebP.

    Raises:
        StageError: the bytes are not a picture.
    """
    image = open_picture(data, "report", name)
    kind = (image.format or "png").lower()
    if len(data) > _LARGE_BYTES:
        data, kind = _encoded(image, "webp"), "webp"
    return encoded_picture(data, kind, image.size, pixelated=max(image.size) <= _PIXEL_ART_SIDE)


def thumbnail(data: bytes, name: str) -> Picture:
    """Return an encoded picture at thumbnail size, 128 to 160 pixels on its longer side; no styling is needed.

    Small pictures are enlarged by an integer factor with sharp pixels, large ones are shrunk; both are a few KB.

    Raises:
        StageError: the bytes are not a picture.
    """
    image = open_picture(data, "report", name).convert("RGB")
    pixelated = max(image.size) <= _PIXEL_ART_SIDE
    factor = _THUMBNAIL_SIDE // max(image.size)
    if factor > 1:
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    else:
        image.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    kind = "png" if pixelated else "webp"
    return encoded_picture(_encoded(image, kind), kind, image.size, pixelated)


def _encoded(image: Image.Image, kind: str) -> bytes:
    buffer = BytesIO()
    if kind == "png":
        image.save(buffer, format="PNG", optimize=True)
    else:
        image.convert("RGB").save(buffer, format="WEBP", quality=_WEBP_QUALITY)
    return buffer.getvalue()


def encoded_picture(data: bytes, kind: str, size: tuple[int, int], pixelated: bool) -> Picture:
    """Return the bytes of a picture of type `image/<kind>` and of `size` (width, height) as a picture to show."""
    return Picture(f"data:image/{kind};base64,{b64encode(data).decode('ascii')}", *size, pixelated)
