"""The gallery finds what a plain filter over all rows finds, in pages, and never reads a picture for a list."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from ospo_core.artifacts.storage import Storage
from ospo_core.browsing.gallery import Gallery, PairQuery, sub_categories
from ospo_core.browsing.pictures import Pictures
from ospo_core.browsing.rows import PAGE_ROWS
from ospo_core.errors import DamagedArtifactError
from ospo_core.schema import StageName
from tests.support.browsed_round import BrowsedRound, browsed_round

Row = dict[str, Any]


def doubt(row: Row) -> float:
    return min(abs(one["p_yes"] - one["p_no"]) for one in row["chosen_answers"])


def texts(row: Row) -> str:
    return f"{row['prompt']} {row['negative_prompt']}"


def gap(row: Row) -> float:
    return float(row["chosen_score"] - row["rejected_score"])


@pytest.mark.parametrize(
    ("query", "kept", "key"),
    [
        ({}, lambda row: True, None),
        ({"category": "layout"}, lambda row: row["category"] == "layout", None),
        ({"kind": "swap"}, lambda row: False, None),
        ({"sub_category": "color_2", "order": "narrow"}, lambda row: row["sub_category"] == "color_2", gap),
        ({"least": 0.8, "order": "wide"}, lambda row: row["chosen_score"] >= 0.8, lambda row: -gap(row)),
        ({"most": 0.8, "text": "PURPLE"}, lambda row: row["chosen_score"] <= 0.8 and "purple" in texts(row), None),
        ({"order": "doubt"}, lambda row: True, doubt),
        ({"text": "(.*"}, lambda row: False, None),
        ({"text": "<script>"}, lambda row: "<script>" in row["prompt"], None),
    ],
)
def test_pages_are_those_of_a_plain_filter(
    made: BrowsedRound, query: Row, kept: Callable[[Row], bool], key: Callable[[Row], float] | None
) -> None:
    plain = [row for row in made.pairs if kept(row)]
    wanted = [row["item_id"] for row in (sorted(plain, key=key) if key else plain)]
    found, number = [], 1
    while True:
        page = Gallery(made.storage).page(made.manifests[StageName.PAIRS], PairQuery(**query, page=number))
        assert page.total == len(wanted) and len(page.rows) <= PAGE_ROWS
        found += [row["item_id"] for row in page.rows]
        if number >= page.last:
            break
        number += 1
    assert found == wanted
    assert Gallery(made.storage).page(made.manifests[StageName.PAIRS], PairQuery(**query, page=99)).rows == []


def test_sub_categories_are_counted(made: BrowsedRound) -> None:
    counts = sub_categories(made.storage, made.manifests[StageName.PAIRS])
    assert sum(counts.values()) == len(made.pairs) and list(counts.values()) == sorted(counts.values(), reverse=True)


@pytest.mark.parametrize(
    "query", [{"category": "everything"}, {"page": 0}, {"least": 2}, {"text": "x" * 201}, {"order": "name; drop"}]
)
def test_impossible_queries_are_refused(query: Row) -> None:
    with pytest.raises(ValidationError):
        PairQuery.model_validate(query)


def test_a_list_reads_no_picture_and_a_picture_only_its_column(tmp_path: Path) -> None:
    """The bytes of the columns with pictures are destroyed: lists are the same, and only pictures are missed."""
    made = browsed_round(Storage(str(tmp_path)))
    manifest = made.manifests[StageName.PAIRS]
    before = Gallery(made.storage).page(manifest, PairQuery(order="doubt"))
    for index in range(len(manifest.shards)):
        _destroy(tmp_path / manifest.shard_key(index), "rejected_image.bytes")
    assert Gallery(made.storage).page(manifest, PairQuery(order="doubt")) == before
    pictures = Pictures(made.storage)
    assert pictures.read(manifest, "chosen_image", 2).data == made.pairs[2]["chosen_image"]["bytes"]
    with pytest.raises(DamagedArtifactError, match="cannot be read"):
        pictures.read(manifest, "rejected_image", 2)


def _destroy(path: Path, column: str) -> None:
    group = pq.ParquetFile(path).metadata.row_group(0)
    chunk = next(one for one in map(group.column, range(group.num_columns)) if one.path_in_schema == column)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(bytes(data))
