"""Perturbing and densifying: kinds by sub-category, retries of failures only, drops by reason, seeds by identity."""

from __future__ import annotations

import re
from typing import Any

from ospo_core.artifacts.ids import derive_seed
from ospo_core.config.sections import PerturbationsConfig
from ospo_core.engines.base import Request
from ospo_core.prompts import filters
from ospo_core.prompts.families import PromptAnswer, family
from ospo_core.prompts.perturbing import perturb_prompts
from ospo_core.prompts.writing import prompt_row
from ospo_core.schema import SubCategory, table_from_rows
from tests.support.fake_engine import FakeEngine, instruction_of

SHAPES = family("shapes")
ROWS = [
    prompt_row(PromptAnswer("a red circle", ("red circle",)), SubCategory.COLOR_1),
    prompt_row(PromptAnswer("a red circle and a blue star", ("red circle", "blue star")), SubCategory.COLOR_2),
]


def good(request: Request) -> str:
    """A new negative for every seed; dense prompts that repeat the short ones at a place."""
    text = instruction_of(request)
    if text.startswith("place both"):
        base, negative = text.removeprefix("place both : ").removesuffix(" .").split(" | ")
        return f"{base} at the top | {negative} at the top"
    return f"a thing number{request.seed % 10**6}"


def perturb(engine: FakeEngine, rows: list[dict[str, Any]] = ROWS, **config: Any) -> tuple[Any, Any, Any, Any]:
    return perturb_prompts(engine, SHAPES, rows, PerturbationsConfig(**config), seed=7)


def test_each_prompt_gets_the_kinds_of_its_sub_category_and_valid_rows() -> None:
    rows, drops, counts, _ = perturb(FakeEngine(good))
    assert [row["kind"] for row in rows] == ["replace"] * 3 + ["replace", "swap", "drop"]
    assert [row["variant"] for row in rows] == [0, 1, 2, 0, 1, 2]
    assert not drops and counts["calls"] == 12 and counts["items_without_variants"] == 0
    assert table_from_rows("perturbations", rows).num_rows == 6
    assert rows[0]["dense_prompt"] == "a red circle at the top"
    assert rows[0]["dense_negative_prompt"] == rows[0]["negative_prompt"] + " at the top"


def test_all_open_requests_go_in_one_call_and_noise_seeds_come_from_identity() -> None:
    engine = FakeEngine(good)
    rows, _, _, _ = perturb(engine)
    assert [len(call) for call in engine.calls] == [6, 6]
    assert [row["seed"] for row in rows] == [derive_seed(7, row["item_id"], row["variant"]) for row in rows]


def test_a_shard_of_its_own_gives_a_prompt_the_same_rows() -> None:
    together, _, _, _ = perturb(FakeEngine(good))
    alone, _, _, _ = perturb(FakeEngine(good), ROWS[1:])
    assert together[3:] == alone


def test_only_failed_variants_are_asked_again_with_another_seed() -> None:
    failing: set[str] = set()

    def answer(request: Request) -> str:
        if "swap" in request.prompt and not failing:
            failing.add(request.prompt)
            return "| broken"
        return good(request)

    engine = FakeEngine(answer)
    rows, drops, counts, _ = perturb(engine)
    assert [len(call) for call in engine.calls] == [6, 1, 6] and len(rows) == 6
    assert engine.calls[1][0].seed not in {request.seed for request in engine.calls[0]}
    assert not drops and counts["retries"] == 1 and counts["failed_unparsable"] == 1


def test_equal_repeated_and_unparsable_answers_are_dropped_by_reason() -> None:
    def answer(request: Request) -> str:
        text = instruction_of(request)
        if text.startswith("place both"):
            return good(request)
        return "a green heart" if "blue star" not in text else re.sub(".* : | \\.$", "", text)

    rows, drops, counts, _ = perturb(FakeEngine(answer), attempts=2)
    assert [(row["variant"], row["negative_prompt"]) for row in rows] == [(0, "a green heart")]
    assert drops == {filters.SAME_AS_EARLIER_VARIANT: 2, filters.EQUAL_TO_BASE: 3}
    assert counts["items_without_variants"] == 1


def test_dense_prompts_that_say_the_same_are_dropped() -> None:
    rows, drops, _, _ = perturb(FakeEngine(lambda r: "x | x" if "place both" in r.prompt else good(r)), attempts=2)
    assert rows == [] and drops == {filters.DENSE_EQUAL: 6}


def test_without_densify_the_short_prompts_are_rendered() -> None:
    engine = FakeEngine(good)
    rows, _, _, _ = perturb(engine, densify=False)
    assert len(engine.calls) == 1
    assert all(
        (row["dense_prompt"], row["dense_negative_prompt"]) == (row["prompt"], row["negative_prompt"]) for row in rows
    )


def test_no_prompts_give_no_rows() -> None:
    assert perturb(FakeEngine(good), [])[0] == []
