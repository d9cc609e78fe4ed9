"""The growth of cost at tiny sizes: every kind of work has its points and its panel."""

from __future__ import annotations

from benchmarks.cost_growth import all_growths, growth_figure
from ospo_core.report.plots import svg


def test_every_kind_of_work_is_measured_and_drawn() -> None:
    sizes = {"items": (2, 4), "batches": (1, 2), "questions": (1, 2), "tokens": (4, 16)}
    growths = all_growths(sizes, repeats=1)
    assert [growth.sizes for growth in growths] == [[2, 4], [1, 2], [1, 2], [4, 16]]
    for growth in growths:
        assert all(seconds > 0 for seconds in growth.seconds) and len(growth.exponents) == 1
    drawn = svg(growth_figure(growths))
    assert drawn.count(b">MB at the peak<") == 4
