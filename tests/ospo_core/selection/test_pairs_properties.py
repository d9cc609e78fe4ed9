"""The rules for many prompts at once decide what the rules written prompt by prompt say, to the byte of the table."""

from __future__ import annotations

import math
import random
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ospo_core.artifacts.tables import encode_table
from ospo_core.config.sections import SelectionConfig
from ospo_core.errors import StageError
from ospo_core.schema import Side, table_from_rows
from ospo_core.selection.pairs import build_pairs
from ospo_core.selection.scoring import answer_score, could_be_chosen
from tests.support.candidates import Rows, image, pairs_of, rows_of
from tests.support.simple_pairs import simple_pairs
from tests.support.simple_rules import Candidate

OPTIONS: list[dict[str, Any]] = [
    {},
    {"v2_rejected": "same_noise"},
    {"v2_answer_threshold": 0.0},
    {"v2_answer_threshold": -0.5},
    {"v2_answer_threshold": -0.5, "v2_rejected": "same_noise"},
    {"rule": "v3"},
    {"rule": "v3", "v3_score_threshold": 0.0},
]
CONFIGS = [
    *(SelectionConfig(sides=sides, **options) for sides in ("published", "any") for options in OPTIONS),
    SelectionConfig(rule="best_of_n"),
    SelectionConfig(filtering=False),
]
TIES = st.sampled_from([-1.0, -0.6, -0.5, -0.0, 0.0, 0.5, 0.6, 1.0])
numbers = TIES | st.floats(-1, 1)
moods = st.sampled_from([st.floats(0.51, 1), st.just(0.9), st.just(-0.9), numbers])
logprobs = st.sampled_from([-3.0, -2.5, -3.5]) | st.floats(-12, 0)
odd = st.sampled_from([math.nan, math.inf, -math.inf])


@st.composite
def prompts(draw: st.DrawFn, number: int) -> tuple[Rows, Rows, Rows]:
    """Return the rows of one prompt; images, scores or answers of some may be missing, a number may be no number."""
    variants = draw(st.lists(st.integers(0, 5), min_size=1, max_size=3, unique=True))
    places = [(variant, side) for variant in variants for side in Side]
    candidates = [draw(scored(variant, side, variants)) for variant, side in draw(st.permutations(places))]
    perturbed, images, scores = rows_of(f"item{number}", candidates, variants)
    if draw(st.booleans()):
        images = draw(st.lists(st.sampled_from(images), unique_by=lambda row: (row["variant"], row["side"])))
    scores = [row for row in scores if draw(st.sampled_from([True, True, True, False]))]
    for row in scores:
        row["score"] = draw(st.sampled_from([row["score"]] * 6 + [None]))
    return perturbed, images, scores


@st.composite
def scored(draw: st.DrawFn, variant: int, side: Side, variants: list[int]) -> Candidate:
    count = draw(st.sampled_from([0, 1, 2, 3, 3]))
    answers = draw(st.lists(draw(moods), min_size=count, max_size=count))
    negatives = [draw(logprobs) for _ in variants]
    if draw(st.integers(0, 30)) == 0:
        negatives[0] = draw(odd)
    about = {v: draw(st.lists(draw(moods), max_size=2)) for v in draw(st.permutations(variants))}
    return image(variant, side, answers, draw(logprobs), negatives, about)


tables = st.integers(0, 5).flatmap(lambda count: st.tuples(*(prompts(number) for number in range(count))))


@settings(max_examples=400, deadline=None)
@given(tables, st.sampled_from(CONFIGS))
def test_pairs_and_drops_are_those_of_the_simple_rules(
    items: tuple[tuple[Rows, Rows, Rows], ...], config: SelectionConfig
) -> None:
    perturbed, images, scores = ([row for item in items for row in item[place]] for place in range(3))
    simple = simple_pairs(perturbed, images, scores, config)
    made = pairs_of(perturbed, images, scores, config)
    assert (made.items, made.drops) == (simple.items, simple.drops)
    assert encode_table(made.table) == encode_table(table_from_rows("pairs", simple.rows))


def shard(count: int, rng: random.Random, picture: bytes = b"") -> tuple[Rows, Rows, Rows]:
    """Return the rows of many prompts with three variants each; answers are sure of themselves as often as not."""

    def answers() -> list[float]:
        return [rng.choice((1, 1, -1)) * rng.uniform(0.3, 1) for _ in range(rng.choice((1, 3)))]

    def candidate(variant: int, side: Side) -> Candidate:
        negatives = [rng.gauss(-4, 1) for _ in range(3)]
        return image(variant, side, answers(), rng.gauss(-3, 1), negatives, {v: answers() for v in range(3)})

    perturbed, images, scores = Rows(), Rows(), Rows()
    for number in range(count):
        candidates = [candidate(variant, side) for variant in range(3) for side in Side]
        rows = rows_of(f"item{number}", candidates, range(3))
        for whole, part in zip((perturbed, images, scores), rows, strict=True):
            whole.extend(part)
    for row in images:
        row["image"] = {"bytes": picture, "path": row["image"]["path"]}
    return perturbed, images, scores


def test_a_large_shard_gives_the_same_bytes() -> None:
    rows = shard(300, random.Random(0))
    for config in CONFIGS:
        made, simple = pairs_of(*rows, config), simple_pairs(*rows, config)
        assert made.drops == simple.drops
        assert encode_table(made.table) == encode_table(table_from_rows("pairs", simple.rows))
        assert made.table.num_rows > 0


def test_pairs_are_the_same_without_the_log_probabilities_of_images_that_could_not_be_chosen() -> None:
    perturbed, images, scores = shard(300, random.Random(1))
    for config in CONFIGS:
        could = [could_be_chosen(row["side"], [s_of(answer) for answer in row["answers"]], config) for row in scores]
        some = [
            row if possible else row | {"logprob_negatives": None} for row, possible in zip(scores, could, strict=True)
        ]
        made, every = pairs_of(perturbed, images, some, config), pairs_of(perturbed, images, scores, config)
        assert made.drops == every.drops and made.table.equals(every.table) and made.table.num_rows > 0
        assert 0 < sum(could) < len(could)


def s_of(answer: dict[str, float]) -> float:
    return answer_score(answer["p_yes"], answer["p_no"])


def test_a_chosen_image_without_log_probabilities_is_an_error() -> None:
    rows = shard(20, random.Random(0))
    scores = [row | {"logprob_negatives": None} for row in rows[2]]
    for config in CONFIGS:
        with pytest.raises(StageError, match="no log-probabilities under the perturbed prompts"):
            pairs_of(rows[0], rows[1], scores, config)


def test_the_order_of_a_prompts_rows_changes_nothing() -> None:
    rng = random.Random(0)
    rows = shard(50, rng)

    def shuffled(table: Rows) -> Rows:
        return sorted(table, key=lambda row: (int(row["item_id"].removeprefix("item")), rng.random()))

    others = shuffled(rows[0]), shuffled(rows[1]), shuffled(rows[2])
    for config in CONFIGS:
        assert pairs_of(*rows, config).table.equals(pairs_of(*others, config).table)


def test_memory_does_not_grow_with_the_number_of_shards() -> None:
    rows = shard(64, random.Random(0), picture=bytes(20_000))
    perturbations, images, scores = map(table_from_rows, ("perturbations", "images", "scores"), rows)

    def resident_mib(shards: int) -> float:
        for _ in range(shards):
            assert build_pairs(perturbations, images, scores, SelectionConfig()).table.nbytes > 1_000_000
        return float(psutil.Process().memory_info().rss / 2**20)

    settled = resident_mib(20)
    assert resident_mib(80) < settled + 40  # the pairs of 80 shards have 100 MiB and more
