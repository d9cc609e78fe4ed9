"""Relations, overlaps and counts of boxes made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ospo_core.evaluation.benchmarks.detections import (
    Box,
    Detection,
    best,
    directions,
    distinct,
    in_depth,
    in_plane,
    suppressed,
)


def at(x: float, y: float, size: float = 10) -> Box:
    return Box(x - size / 2, y - size / 2, x + size / 2, y + size / 2)


@pytest.mark.parametrize(
    ("place", "relation", "score"),
    [
        ((0, 50), "on the left of", 1.0),
        ((0, 50), "on the right of", 0.0),
        ((100, 50), "on the right of", 1.0),
        ((50, 0), "on the top of", 1.0),
        ((50, 0), "on top of", 1.0),
        ((50, 100), "on the bottom of", 1.0),
        ((0, 0), "on the left of", 0.0),
        ((45, 50), "on the left of", 0.1 / (50 / 150)),
        ((50, 50), "next to", 1.0),
        ((50, 900), "next to", 1.0),
        ((350, 250), "near", 0.5),
    ],
)
def test_relations_in_the_plane(place: tuple[float, float], relation: str, score: float) -> None:
    """A diagonal is no direction; overlap above a tenth counts in proportion; near is 150 pixels on either axis."""
    assert in_plane(at(*place), relation, at(50, 50)) == pytest.approx(score)


def test_relations_in_depth_need_overlap_and_the_right_order() -> None:
    depth = np.zeros((20, 20))
    depth[:, :10] = 1.0
    near, far = Box(0, 0, 12, 20), Box(2, 0, 14, 20)
    assert in_depth(near, "in front of", far, depth) == 1.0 and in_depth(near, "behind", far, depth) == 0.0
    assert in_depth(far, "hidden by", near, depth) == 1.0
    assert in_depth(Box(0, 0, 10, 20), "in front of", Box(8, 0, 18, 20), depth) == pytest.approx((40 / 360) / 0.5)
    assert in_depth(Box(0, 0, 5, 5), "in front of", Box(15, 15, 20, 20), depth) == 0.0
    assert in_depth(Box(30, 30, 40, 40), "in front of", far, depth) == 0.0, "a box outside the picture"


@pytest.mark.parametrize(
    ("place", "held"),
    [
        ((0, 50), {"left of"}),
        ((100, 50), {"right of"}),
        ((50, 0), {"above"}),
        ((50, 100), {"below"}),
        ((0, 0), {"left of", "above"}),
        ((51, 50), set()),
        ((50, 50), set()),
    ],
)
def test_directions_hold_both_on_a_diagonal_and_not_within_the_dead_zone(
    place: tuple[float, float], held: set[str]
) -> None:
    assert directions(at(*place), at(50, 50)) == held


def test_boxes_of_one_object_count_once() -> None:
    boxes = [Box(0, 0, 10, 10), Box(0, 0, 10, 9.5), Box(2, 2, 4, 4), Box(20, 20, 30, 30)]
    found = [Detection("cat", 0.9 - n / 10, box) for n, box in enumerate(boxes)]
    assert [one.box for one in distinct(found)] == [boxes[0], boxes[3]]
    assert len(distinct([found[0], Detection("dog", 0.5, boxes[0])])) == 2
    assert [one.box for one in suppressed(list(reversed(found)))] == [boxes[0], boxes[2], boxes[3]]
    assert best(found, "cat") == found[0] and best(found, "dog") is None


def test_empty_boxes_have_no_overlap() -> None:
    empty = Box(5, 5, 5, 5)
    assert empty.overlap(empty) == 0.0 and Box(9, 9, 1, 1).area == 0.0
    assert len(distinct([Detection("cat", 1, empty), Detection("cat", 1, empty)])) == 2
