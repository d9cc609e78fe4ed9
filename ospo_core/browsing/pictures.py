"""One picture by stage, fingerprint, column and place; the last ones are kept in memory."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import NamedTuple

import polars as pl

from ospo_core.artifacts.manifest import Manifest
from ospo_core.artifacts.storage import Storage
from ospo_core.browsing.library import missing
from ospo_core.browsing.rows import PLACE, collected, lazy_rows, shard_of
from ospo_core.schema import StageName

COLUMNS: dict[StageName, tuple[str, ...]] = {
    StageName.IMAGES: ("image",),
    StageName.PAIRS: ("chosen_image", "rejected_image"),
    StageName.EVALUATION: ("image",),
}
"""The columns with pictures, by stage."""

_KINDS = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"RIFF", "image/webp"))
_KEPT_BYTES = 64 * 2**20


class EncodedPicture(NamedTuple):
    """The bytes of a picture as they are stored, and their media type."""

    data: bytes
    media_type: str


class Pictures:
    """Reads pictures of a storage, one row of one column at a time; up to `kept` bytes of them stay in memory."""

    def __init__(self, storage: Storage, kept: int = _KEPT_BYTES) -> None:
        self._storage, self._kept, self._size = storage, kept, 0
        self._known: OrderedDict[tuple[str, str, int], EncodedPicture] = OrderedDict()
        self._lock = Lock()

    def read(self, manifest: Manifest, column: str, place: int) -> EncodedPicture:
        """Return the picture at `place` of a column.

        Raises:
            MissingObjectError: the column has no pictures, there is no such row, or its bytes are no picture.
            DamagedArtifactError: the shard is missing or cannot be read.
        """
        key = (manifest.prefix, column, place)
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        picture = self._read(manifest, column, place)
        with self._lock:
            self._size += len(picture.data) - len(self._known.pop(key, picture._replace(data=b"")).data)
            self._known[key] = picture
            while self._size > self._kept:
                _, oldest = self._known.popitem(last=False)
                self._size -= len(oldest.data)
        return picture

    def _read(self, manifest: Manifest, column: str, place: int) -> EncodedPicture:
        known = column in COLUMNS.get(manifest.stage, ())
        if not known or not 0 <= place < sum(entry.rows for entry in manifest.shards):
            raise missing("picture", f"{manifest.stage}, {column}, {place}", "Choose one from a page")
        shard = shard_of(manifest, place)
        start = place - sum(entry.rows for entry in manifest.shards[:shard])
        lazy = lazy_rows(self._storage, manifest, shard).drop(PLACE).slice(start, 1)
        frame = collected(manifest, lazy.select(pl.col(column).struct.field("bytes")))
        data = frame["bytes"].to_list()[0] if frame.height else None
        kind = next((kind for mark, kind in _KINDS if data is not None and data.startswith(mark)), None)
        if data is None or kind is None:
            raise missing("picture", f"{manifest.stage}, {column}, {place}", "Run the stage that drew it again")
        return EncodedPicture(data, kind)
