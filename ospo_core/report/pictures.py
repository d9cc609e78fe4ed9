"""Encoded pictures as data URIs, so that a report is a single file."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from io import BytesIO

from PIL import Image, UnidentifiedImageError

from ospo_core.errors import StageError

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
    try:
        with Image.open(BytesIO(data)) as image:
            (width, height), kind = image.size, (image.format or "png").lower()
            if len(data) > _LARGE_BYTES:
                data, kind = _as_webp(image), "webp"
    except (UnidentifiedImageError, OSError) as error:
        remedy = "Recompute the stage that made it (--refresh)"
        raise StageError("not a picture", field="report", value=name, remedy=remedy) from error
    uri = f"data:image/{kind};base64,{b64encode(data).decode('ascii')}"
    return Picture(uri=uri, width=width, height=height, pixelated=max(width, height) <= _PIXEL_ART_SIDE)


def thumbnail(data: bytes, name: str) -> Picture:
    """Return an encoded picture at thumbnail size, 128 to 160 pixels on its longer side; no styling is needed.

    Small pictures are enlarged by an integer factor with sharp pixels, large ones are shrunk; both are a few KB.

    Raises:
        StageError: the bytes are not a picture.
    """
    source = embed(data, name)
    with Image.open(BytesIO(data)) as opened:
        image = opened.convert("RGB")
    longer = max(source.width, source.height)
    factor = max(1, _THUMBNAIL_SIDE // longer)
    if factor > 1:
        image = image.resize((source.width * factor, source.height * factor), Image.Resampling.NEAREST)
    else:
        image.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    if source.pixelated:
        image.save(buffer, format="PNG", optimize=True)
    else:
        image.save(buffer, format="WEBP", quality=_WEBP_QUALITY)
    kind = "png" if source.pixelated else "webp"
    uri = f"data:image/{kind};base64,{b64encode(buffer.getvalue()).decode('ascii')}"
    return Picture(uri=uri, width=image.width, height=image.height, pixelated=source.pixelated)


def _as_webp(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.convert("RGB").save(buffer, format="WEBP", quality=_WEBP_QUALITY)
    return buffer.getvalue()
