"""The rules for many prompts at once decide what the rules for one prompt say, to the byte of the table."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.synthetic import selection_shards, selection_tables
from ospo_core.artifacts.tables import encode_table
from ospo_core.config.sections import SelectionConfig
from ospo_core.schema import Side, table_from_rows
from ospo_core.selection import build_pairs
from tests.ospo_core.selection.candidates import image
from tests.ospo_core.selection.one_prompt import Rows, rows_of
from tests.support.simple_pairs import simple_pairs
from tests.support.simple_rules import Candidate

CONFIGS = [
    SelectionConfig(),
    SelectionConfig(v2_rejected="same_noise"),
    SelectionConfig(v2_answer_threshold=0.0),
    SelectionConfig(v2_answer_threshold=-0.5),
    SelectionConfig(rule="v3"),
    SelectionConfig(rule="v3", v3_score_threshold=0.0),
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
    made = build_pairs(
        table_from_rows("perturbations", perturbed),
        table_from_rows("images", images),
        table_from_rows("scores", scores),
        config,
    )
    assert (made.items, made.drops) == (simple.items, simple.drops)
    assert encode_table(made.table) == encode_table(table_from_rows("pairs", simple.rows))


def test_a_large_shard_gives_the_same_bytes() -> None:
    made_of = selection_tables([f"item{number}" for number in range(500)], np.random.default_rng(0))
    given_rows = [made_of.perturbations.to_pylist(), made_of.images.to_pylist(), made_of.scores.to_pylist()]
    for config in CONFIGS:
        made = build_pairs(made_of.perturbations, made_of.images, made_of.scores, config)
        simple = simple_pairs(*given_rows, config)
        assert made.drops == simple.drops
        assert encode_table(made.table) == encode_table(table_from_rows("pairs", simple.rows))
        assert made.table.num_rows > 0


def test_memory_does_not_grow_with_the_number_of_shards() -> None:
    def peak(shards: int) -> int:
        tracemalloc.start()
        for tables_of_shard in selection_shards(shards * 64, 64):
            build_pairs(
                tables_of_shard.perturbations, tables_of_shard.images, tables_of_shard.scores, SelectionConfig()
            )
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    peak(1)  # what is made once, at the first use
    assert peak(16) < 1.5 * peak(2)
