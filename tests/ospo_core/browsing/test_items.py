"""One prompt is followed through all tables; drops have an example of each reason; parent and child are paired."""

from __future__ import annotations

from typing import Any

import pytest

from ospo_core.artifacts.storage_errors import MissingObjectError
from ospo_core.browsing.comparisons import OUTCOMES, ComparisonQuery, find_comparisons
from ospo_core.browsing.drops import find_drops
from ospo_core.browsing.items import find_item
from ospo_core.browsing.library import Library
from ospo_core.schema import StageName
from tests.support.browsed_round import HELD_OUT, HOSTILE, PROMPTS, ROUND_ID, UNPAIRED, BrowsedRound


@pytest.mark.parametrize("index", [0, 9, 25, 58])
def test_an_item_has_the_rows_of_every_table(made: BrowsedRound, index: int) -> None:
    item = find_item(made.storage, made.manifests, f"{index:04d}")
    assert item.prompt["item_id"] == f"{index:04d}" and item.prompt["place"] == index
    (variant,) = item.variants
    assert {side: row["place"] for side, row in variant.pictures.items()} == {
        "base": 2 * index,
        "negative": 2 * index + 1,
    }
    assert variant.scores["base"]["answers"] and len(item.questions) == 2
    paired = index % 10 != UNPAIRED
    assert (item.pair is not None) == paired
    assert item.pair is None or made.pairs[item.pair["place"]]["item_id"] == f"{index:04d}"
    everything = [item.prompt, item.pair or {}, *variant.pictures.values()]
    assert not any(name.endswith(("image", "tokens")) for row in everything for name in row)


@pytest.mark.parametrize("name", ["", "9999", "' OR 1=1", "x" * 10_000, "../prompts"])
def test_an_unknown_item_is_missing(made: BrowsedRound, name: str) -> None:
    with pytest.raises(MissingObjectError):
        find_item(made.storage, made.manifests, name)


def test_an_unfinished_round_shows_what_there_is(made: BrowsedRound) -> None:
    item = find_item(made.storage, {StageName.PROMPTS: made.manifests[StageName.PROMPTS]}, "0001")
    assert item.variants == [] and item.pair is None


def test_every_reason_has_an_example(made: BrowsedRound) -> None:
    drops = find_drops(made.storage, made.manifests, Library(made.storage).record(ROUND_ID).config)
    found = {(drop.stage, drop.reason): drop for drop in drops}
    assert found[StageName.PROMPTS, "duplicate"].example == HOSTILE
    pairs = found[StageName.PAIRS, "no_chosen_candidate"]
    assert pairs.count == PROMPTS // 10 and int(pairs.item_id) % 10 == UNPAIRED and pairs.example


def test_outcomes_part_the_comparisons(made: BrowsedRound) -> None:
    manifest = made.manifests[StageName.EVALUATION]
    whole = find_comparisons(made.storage, manifest, ComparisonQuery())
    assert whole.total == HELD_OUT
    totals: dict[Any, int] = {}
    for outcome, (before, after) in OUTCOMES.items():
        page = find_comparisons(made.storage, manifest, ComparisonQuery(outcome=outcome))
        totals[outcome] = page.total
        assert all((row["before"]["right"], row["after"]["right"]) == (before, after) for row in page.rows)
    assert sum(totals.values()) == HELD_OUT and min(totals.values()) >= 0
    assert all(row["after"]["place"] == row["before"]["place"] + HELD_OUT for row in whole.rows)
    red = find_comparisons(made.storage, manifest, ComparisonQuery(text="RED", category="attribute"))
    assert red.total == len([row for row in red.rows if "red" in row["prompt"] and row["category"] == "attribute"]) > 0
