"""A picture is the one of its row, only pictures are given out, and only so many are kept."""

from __future__ import annotations

import pytest

from ospo_core.artifacts.storage_errors import MissingObjectError
from ospo_core.browsing.pictures import Pictures
from ospo_core.browsing.rows import lazy_rows, rows_at
from ospo_core.errors import OspoError
from ospo_core.schema import StageName
from tests.support.browsed_round import BrowsedRound


@pytest.mark.parametrize("kept", [0, 1000, 10**6])
def test_every_picture_is_that_of_its_row(made: BrowsedRound, kept: int) -> None:
    pictures, manifest = Pictures(made.storage, kept), made.manifests[StageName.PAIRS]
    for _ in range(2):
        for place, row in enumerate(made.pairs):
            for column in ("chosen_image", "rejected_image"):
                found = pictures.read(manifest, column, place)
                assert found.data == row[column]["bytes"] and found.media_type == "image/png"
    assert pictures._size == sum(len(one.data) for one in pictures._known.values()) <= kept


@pytest.mark.parametrize(
    ("stage", "column", "place"),
    [
        (StageName.PAIRS, "chosen_image", -1),
        (StageName.PAIRS, "chosen_image", 10**9),
        (StageName.PAIRS, "prompt", 0),
        (StageName.PROMPTS, "prompt", 0),
        (StageName.TRAINING, "image", 0),
    ],
)
def test_what_is_no_picture_is_missing(made: BrowsedRound, stage: StageName, column: str, place: int) -> None:
    with pytest.raises(MissingObjectError):
        Pictures(made.storage).read(made.manifests[stage], column, place)


@pytest.mark.parametrize("file", ["../../../secret.parquet", "sub/part-00000.parquet", "/etc/passwd"])
def test_a_manifest_cannot_lead_out_of_its_folder(made: BrowsedRound, file: str) -> None:
    manifest = made.manifests[StageName.PAIRS]
    hostile = manifest.model_copy(update={"shards": (manifest.shards[0].model_copy(update={"file": file}),)})
    with pytest.raises(OspoError):
        lazy_rows(made.storage, hostile)


def test_rows_come_in_the_order_asked_for(made: BrowsedRound) -> None:
    places = [51, 0, 18, 17, 40]
    rows = rows_at(made.storage, made.manifests[StageName.PAIRS], places, ["item_id"])
    assert [row["item_id"] for row in rows] == [made.pairs[place]["item_id"] for place in places]
