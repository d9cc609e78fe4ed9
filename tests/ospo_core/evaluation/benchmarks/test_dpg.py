"""DPG-Bench's graph: a child counts only if its parents hold."""

from __future__ import annotations

import pytest

from ospo_core.evaluation.benchmarks.dpg import category_shares, graph_score
from ospo_core.evaluation.benchmarks.prompts import Proposition


def graph(*parents: tuple[int, ...]) -> list[Proposition]:
    return [
        Proposition(number=number, parents=some, category="entity" if not some else "attribute", question="q?")
        for number, some in enumerate(parents, start=1)
    ]


@pytest.mark.parametrize(
    ("parents", "yes", "score"),
    [
        (((), ()), (True, False), 0.5),
        (((), (1,)), (True, True), 1.0),
        (((), (1,)), (False, True), 0.0),
        (((), (1,)), (True, False), 0.5),
        (((), (), (1, 2)), (True, False, True), 1 / 3),
        (((), (1,), (2,)), (False, True, True), 0.0),
        (((2,), (), (1,)), (True, False, True), 0.0),
    ],
)
def test_a_child_falls_with_its_parents(
    parents: tuple[tuple[int, ...], ...], yes: tuple[bool, ...], score: float
) -> None:
    assert graph_score(graph(*parents), dict(enumerate(yes, start=1))) == pytest.approx(score)


def test_categories_count_answers_as_given() -> None:
    shares = category_shares(graph((), (1,), (1,)), {1: False, 2: True, 3: False})
    assert shares == {"entity": 0.0, "attribute": 0.5}
