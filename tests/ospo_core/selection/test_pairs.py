"""From the rows of three tables to the rows of a fourth."""

from __future__ import annotations

import pytest

from ospo_core.config.sections import SelectionConfig
from ospo_core.errors import StageError
from ospo_core.schema import TABLES, Side
from ospo_core.selection.rules import NO_CHOSEN_CANDIDATE, NO_IMAGES, NO_QUESTIONS, RULES
from tests.support.candidates import Rows, pairs_of

V2, V3 = SelectionConfig(rule="v2"), SelectionConfig(rule="v3")
PLACES = [(variant, side) for variant in range(3) for side in Side]


def perturbations(item: str) -> Rows:
    return [
        {
            "item_id": item,
            "variant": variant,
            "category": "attribute",
            "sub_category": "color_1",
            "kind": kind,
            "prompt": "a red circle",
            "negative_prompt": f"a {color} circle",
            "dense_prompt": "a red circle on white",
            "dense_negative_prompt": f"a {color} circle on white",
            "seed": variant,
        }
        for variant, (kind, color) in enumerate([("replace", "blue"), ("swap", "green"), ("drop", "yellow")])
    ]


def images(item: str) -> Rows:
    return [
        {
            "item_id": item,
            "variant": variant,
            "side": str(side),
            "dense_prompt": "",
            "seed": variant,
            "tokens": [variant, int(side is Side.NEGATIVE)],
            "image": {"bytes": b"png", "path": f"{item}-{variant}-{side}.png"},
            "mean_logprob": -3.0,
        }
        for variant, side in PLACES
    ]


def scores(item: str, p_yes: dict[tuple[int, Side], float], logprobs: dict[tuple[int, Side], float]) -> Rows:
    """Return one row per image; the default image is unsure, and every negative prompt is clearly wrong about it."""
    return [
        {
            "item_id": item,
            "variant": variant,
            "side": str(side),
            "answers": [
                {
                    "question": "is there a red circle ?",
                    "p_yes": (yes := p_yes.get((variant, side), 0.5)),
                    "p_no": 1 - yes,
                }
            ],
            "negative_answers": [{"variant": v, "question": "?", "p_yes": 0.0, "p_no": 1.0} for v in range(3)],
            "score": 2 * yes - 1,
            "logprob_base": logprobs.get((variant, side), -3.0),
            "logprob_negatives": [-4.0, -3.5, -5.0],
        }
        for variant, side in PLACES
    ]


def good_and_bad(item: str) -> Rows:
    """Return scores by which the base image of variant 1 is good and the negative images of 1 and 2 are bad."""
    p_yes = {(1, Side.BASE): 0.9, (1, Side.NEGATIVE): 0.1, (2, Side.NEGATIVE): 0.2}
    return scores(item, p_yes, {(2, Side.NEGATIVE): -3.25, (1, Side.NEGATIVE): -4.0})


def test_a_v2_pair_carries_images_answers_gaps_and_the_text_negative() -> None:
    result = pairs_of(perturbations("a"), images("a"), good_and_bad("a"), V2)
    assert (result.items, result.drops) == (1, {})
    assert result.table.schema.equals(TABLES["pairs"])
    [row] = result.table.to_pylist()
    expected = {
        "item_id": "a",
        "category": "attribute",
        "sub_category": "color_1",
        "prompt": "a red circle",
        "negative_prompt": "a green circle",
        "negative_kind": "swap",
        "chosen_variant": 1,
        "chosen_side": "base",
        "rejected_variant": 2,
        "rejected_side": "negative",
        "chosen_tokens": [1, 0],
        "rejected_tokens": [2, 1],
        "chosen_score": 0.8,
        "rejected_score": -0.6,
        "image_logprob_gap": 0.25,
        "text_logprob_gap": 0.5,
        "rule": "v2",
        "chosen_mask": None,
        "rejected_mask": None,
    }
    assert {name: row[name] for name in expected} == expected
    assert row["rejected_image"]["path"] == "a-2-negative.png"
    assert row["chosen_answers"][0]["p_yes"] == 0.9


def test_a_v3_pair_stays_within_its_variant() -> None:
    [row] = pairs_of(perturbations("a"), images("a"), good_and_bad("a"), V3).table.to_pylist()
    assert (row["chosen_variant"], row["rejected_variant"], row["rule"]) == (1, 1, "v3")
    assert row["negative_prompt"] == "a green circle"


def test_without_filtering_the_rule_is_named_unfiltered_and_the_variant_depends_on_the_item() -> None:
    names = [f"item{n}" for n in range(20)]
    rows = [
        pairs_of(perturbations(n), images(n), scores(n, {}, {}), SelectionConfig(filtering=False)).table.to_pylist()
        for n in names
    ]
    assert {row["rule"] for [row] in rows} == {"unfiltered"}
    assert {row["chosen_variant"] for [row] in rows} == {0, 1, 2}
    assert all((row["chosen_side"], row["rejected_side"]) == ("base", "negative") for [row] in rows)


def test_every_prompt_is_a_pair_or_a_counted_drop() -> None:
    unscored = [row | {"answers": [], "score": None} for row in scores("c", {}, {})]
    result = pairs_of(
        [row for item in "abcde" for row in perturbations(item)],
        [row for item in "abcd" for row in images(item)],
        [*good_and_bad("a"), *scores("b", {}, {}), *unscored],
        V2,
    )
    assert [row["item_id"] for row in result.table.to_pylist()] == ["a"]
    assert result.drops == {NO_CHOSEN_CANDIDATE: 1, NO_QUESTIONS: 1, NO_IMAGES: 2}
    assert result.items == result.table.num_rows + result.drops.total()


def test_a_scored_image_that_is_not_there_takes_no_part() -> None:
    kept = [row for row in images("a") if (row["variant"], row["side"]) != (2, "negative")]
    [row] = pairs_of(perturbations("a"), kept, good_and_bad("a"), V2).table.to_pylist()
    assert (row["rejected_variant"], row["rejected_side"]) == (1, "negative")


@pytest.mark.parametrize("order", ["ba", "ca"])
def test_rows_out_of_order_are_an_error_and_no_silent_drop(order: str) -> None:
    shuffled = [row for item in order for row in images(item)]
    with pytest.raises(StageError, match="images"):
        pairs_of([row for item in "ab" for row in perturbations(item)], shuffled, [], V2)


def test_the_rows_of_a_prompt_in_two_places_are_an_error() -> None:
    scattered = [row for item in "aba" for row in perturbations(item)]
    with pytest.raises(StageError, match="out of order"):
        pairs_of(scattered, [], [], V2)


def test_an_image_rendered_twice_is_an_error() -> None:
    with pytest.raises(StageError, match="do not fit"):
        pairs_of(perturbations("a"), [*images("a"), images("a")[2]], good_and_bad("a"), V2)


def test_no_rows_give_no_pairs() -> None:
    result = pairs_of([], [], [], V2)
    assert (result.table.num_rows, result.drops, result.items) == (0, {}, 0)


def test_a_rule_that_loses_a_prompt_without_a_reason_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "v2", lambda prompts, config: RULES["v3"](prompts, config).head(0))
    with pytest.raises(StageError, match="do not add up"):
        pairs_of(perturbations("a"), images("a"), good_and_bad("a"), V2)
