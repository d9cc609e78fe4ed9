"""Pictures in the report: small ones keep their bytes, large ones shrink, thumbnails are of one size."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from ospo_core.errors import StageError
from ospo_core.report.pictures import embed, thumbnail
from tests.support.synthetic_round import picture


def test_a_small_picture_keeps_its_bytes_and_its_pixels() -> None:
    small = embed(picture([("red", "circle")]), "x")
    assert small.uri.startswith("data:image/png;base64,") and small.pixelated and small.width == 64


def test_a_large_picture_is_made_smaller_and_smooth() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(noise).save(buffer, format="PNG")
    large = embed(buffer.getvalue(), "x")
    assert large.uri.startswith("data:image/webp;base64,") and not large.pixelated
    assert len(large.uri) < len(buffer.getvalue())


@pytest.mark.parametrize(("side", "shown", "kind"), [(16, 160, "png"), (64, 128, "png"), (384, 160, "webp")])
def test_thumbnails_are_of_one_size_and_weigh_little(side: int, shown: int, kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(noise).save(buffer, format="PNG")
    small = thumbnail(buffer.getvalue(), "x")
    assert (small.width, small.height) == (shown, shown) and small.uri.startswith(f"data:image/{kind};base64,")
    assert len(small.uri) < 30_000


def test_what_is_no_picture_is_named() -> None:
    with pytest.raises(StageError, match="chosen image of a1"):
        embed(b"no picture", "chosen image of a1")
