"""The pool of few-shot examples."""

from __future__ import annotations

from ospo_core.prompts.examples import ExamplePool
from ospo_core.prompts.families import PromptAnswer, family
from ospo_core.schema import SubCategory

SHAPES = family("shapes")
ACCEPTED = [PromptAnswer(f"prompt {number}", ("x",)) for number in range(50)]


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
