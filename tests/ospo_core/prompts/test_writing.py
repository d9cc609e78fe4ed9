"""Writing prompts: quotas, drops that add up, an end to every search, and answers that no batch size changes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from ospo_core.config.sections import PromptsConfig
from ospo_core.engines.base import Completion, Request
from ospo_core.errors import StageError
from ospo_core.prompts import filters
from ospo_core.prompts.families import PromptAnswer, family
from ospo_core.prompts.writing import ExamplePool, GeneratedPrompts, write_prompts
from ospo_core.schema import SubCategory, table_from_rows
from tests.support.fake_engine import FakeEngine

SHAPES = family("shapes")
ALWAYS = "a red circle | red circle | none"
ACCEPTED = [PromptAnswer(f"prompt {number}", ("x",)) for number in range(50)]


def varied(request: Request) -> str:
    """One of 400 prompts, or now and then nonsense, by the request's seed alone."""
    noise = random.Random(request.seed)
    color, shape = f"color{noise.randrange(20)}", f"shape{noise.randrange(20)}"
    return "nonsense" if noise.random() < 0.2 else f"a {color} {shape} | {color} {shape} | none"


def write(engine: FakeEngine, quota: int, seed: int = 0, taken: Sequence[str] = (), **config: Any) -> GeneratedPrompts:
    return write_prompts(
        engine,
        SHAPES,
        SubCategory.COLOR_1,
        quota,
        PromptsConfig(**config),
        seed,
        taken=filters.Deduplicator(taken=taken),
    )


def test_a_quota_is_met_with_distinct_rows_and_every_call_is_accounted_for() -> None:
    done = write(FakeEngine(varied), 60)
    assert len(done.rows) == len({row["item_id"] for row in done.rows}) == 60
    assert done.missing == 0
    assert done.calls == len(done.rows) + done.drops.total() and done.tokens == 5 * done.calls
    assert done.drops[filters.UNPARSABLE] and done.drops[filters.DUPLICATE]
    assert table_from_rows("prompts", done.rows).num_rows == 60


def test_rows_hold_concepts_and_relations() -> None:
    text = "a red circle left of a star | red circle , star | red circle , left of , star"
    row = write(FakeEngine(lambda request: text), 1).rows[0]
    assert row["concepts"] == ["red circle", "star"] and row["relations"] == [["red circle", "left of", "star"]]
    assert row["category"] == "attribute" and row["sub_category"] == "color_1"


def test_a_search_without_success_ends_and_counts_its_drops() -> None:
    engine = FakeEngine(lambda request: ALWAYS)
    done = write(engine, 10, attempts_per_prompt=3)
    assert done.calls == 30 and done.missing == 9
    assert done.drops == {"duplicate": 29}
    assert write(engine, 0).calls == 0


def test_the_same_seed_gives_the_same_rows_and_another_seed_others() -> None:
    first, again, other = (write(FakeEngine(varied), 40, seed).rows for seed in (1, 1, 2))
    assert first == again != other


def test_an_engine_that_splits_its_batches_changes_nothing() -> None:
    class Split(FakeEngine):
        def generate(self, requests: Sequence[Request]) -> list[Completion]:
            return [answer for request in requests for answer in super(Split, self).generate([request])]

    whole, split = write(FakeEngine(varied), 40), write(Split(varied), 40)
    assert whole.rows == split.rows and whole.drops == split.drops


def test_every_call_has_its_own_seed_and_few_calls_of_the_engine_are_made() -> None:
    engine = FakeEngine(varied)
    done = write(engine, 50)
    requests = [request for call in engine.calls for request in call]
    assert len({request.seed for request in requests}) == len(requests) == done.calls
    assert len(engine.calls) <= 5


def test_examples_are_redrawn_from_accepted_prompts() -> None:
    engine = FakeEngine(varied)
    write(engine, 60, redraw_every=20)
    prompts = [request.prompt for call in engine.calls for request in call]
    assert len(set(prompts[:20])) == 1 and "a blue square" in prompts[0]
    assert prompts[20] != prompts[0] and "color" in prompts[20].split("examples")[1]


def test_truncated_contaminated_taken_and_large_numbers_are_dropped_by_name() -> None:
    cut = write(FakeEngine(lambda request: ALWAYS, lambda request: "length"), 1)
    assert set(cut.drops) == {filters.TRUNCATED}
    assert set(write(FakeEngine(lambda request: ALWAYS), 1, taken=["a red circle"]).drops) == {filters.DUPLICATE}
    assert set(write(FakeEngine(lambda request: "six cats | cats | none"), 1).drops) == {filters.NUMBER_ABOVE_FOUR}
    kept_out = filters.ContaminationCheck(["a red circle"])
    held = write_prompts(
        FakeEngine(lambda request: ALWAYS), SHAPES, SubCategory.COLOR_1, 1, PromptsConfig(), 0, contamination=kept_out
    )
    assert set(held.drops) == {filters.CONTAMINATED}


def test_complex_prompts_are_shown_five_examples() -> None:
    engine = FakeEngine(lambda request: ALWAYS)
    write_prompts(engine, SHAPES, SubCategory.COMPLEX, 1, PromptsConfig(), 0)
    assert engine.calls[0][0].prompt.count(" ; ") == 4


def test_too_few_readable_answers_end_the_search_after_its_first_pass() -> None:
    engine = FakeEngine(lambda request: "Sure, here is one!" if request.seed % 4 else ALWAYS)

    def written(min_parsed: float) -> GeneratedPrompts:
        return write_prompts(engine, SHAPES, SubCategory.COLOR_1, 40, PromptsConfig(), 0, min_parsed=min_parsed)

    with pytest.raises(StageError, match=r"of the first 60 answers.*unparsable.*«Sure, here is one!»"):
        written(0.5)
    assert [len(call) for call in engine.calls] == [60]
    assert written(0.1).drops[filters.UNPARSABLE]


def test_a_wrong_content_is_no_wrong_form() -> None:
    done = write_prompts(
        FakeEngine(lambda request: ALWAYS), SHAPES, SubCategory.COLOR_1, 40, PromptsConfig(), 0, min_parsed=1.0
    )
    assert done.drops[filters.DUPLICATE] == done.calls - 1


def test_slices_with_a_larger_pool_begin_with_different_examples() -> None:
    janus = family("janus_pro")
    first = [ExamplePool(janus, SubCategory.COLOR_1, 3, seed, redraw_every=100).at(0, []) for seed in range(12)]
    assert len({frozenset(answer.prompt for answer in shown) for shown in first}) > 6
    assert first[5] == ExamplePool(janus, SubCategory.COLOR_1, 3, 5, redraw_every=100).at(0, [])


def pool(seed: int = 0, size: int = 3) -> ExamplePool:
    return ExamplePool(SHAPES, SubCategory.COLOR_1, size, seed, redraw_every=10)


def test_seeds_are_shown_until_prompts_are_accepted() -> None:
    seeds = SHAPES.seed_examples(SubCategory.COLOR_1)
    assert sorted(answer.prompt for answer in pool().at(0, [])) == sorted(answer.prompt for answer in seeds)
    shown = pool().at(0, ACCEPTED[:1])
    assert ACCEPTED[0] in shown and len(shown) == 3 and len({answer.prompt for answer in shown}) == 3


def test_a_draw_lasts_for_its_calls_whatever_is_accepted_meanwhile() -> None:
    drawn = pool()
    assert drawn.at(10, ACCEPTED[:20]) is drawn.at(19, ACCEPTED)
    assert drawn.at(20, ACCEPTED) != drawn.at(10, ACCEPTED)
    assert (drawn.next_redraw(0), drawn.next_redraw(19), drawn.next_redraw(20)) == (10, 20, 30)


def test_a_draw_is_seeded() -> None:
    assert pool(1).at(30, ACCEPTED) == pool(1).at(30, ACCEPTED) != pool(2).at(30, ACCEPTED)
