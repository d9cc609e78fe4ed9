"""Pictures from storage: only known kinds, and none that would fill the memory."""

from __future__ import annotations

import random
import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from ospo_core.artifacts.pictures import KINDS, MOST_PIXELS, open_picture
from ospo_core.errors import StageError


def encoded(kind: str, side: int = 8) -> bytes:
    buffer = BytesIO()
    Image.fromarray(np.arange(side * side * 3, dtype=np.uint8).reshape(side, side, 3)).save(buffer, format=kind)
    return buffer.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of few bytes that claims a size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100_000, 9)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", KINDS)
def test_known_kinds_are_opened(kind: str) -> None:
    picture = open_picture(encoded(kind))
    assert (picture.format, picture.size) == (kind, (8, 8))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(MOST_PIXELS, 2), (10_000, 10_000), (2**31 - 1, 2**31 - 1), (60_000, 60_000), (0, 1)])
def test_a_picture_that_claims_too_many_pixels_is_not_decoded(size: tuple[int, int]) -> None:
    with pytest.raises(StageError, match=r"report: .*(pixels|not a picture).*got 'x.png'.*Recompute"):
        open_picture(bomb(*size), "report", "x.png")


@pytest.mark.parametrize("kind", ["EPS", "GIF", "BMP", "TIFF", "PPM", "PDF"])
def test_other_kinds_are_refused(kind: str) -> None:
    """Pillow would run Ghostscript to read an EPS."""
    with pytest.raises(StageError, match="not a picture"):
        open_picture(encoded(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_bytes_are_one_error(kind: str) -> None:
    whole, noise = encoded(kind, 32), random.Random(0)
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(noise.randrange(1, 6)):
            data[noise.randrange(8, len(data))] = noise.randrange(256)
        try:
            open_picture(bytes(data[: noise.choice((len(data), noise.randrange(len(data))))])).convert("RGB")
        except StageError as error:
            assert error.field == "image"
