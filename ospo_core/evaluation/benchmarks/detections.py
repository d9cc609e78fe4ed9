"""Detected objects, and what follows from their boxes: overlap, counts, and relations in the plane and in depth."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

DISTANCE = 150.0
"""Pixels within which T2I-CompBench calls two things near each other."""
OVERLAP_2D, OVERLAP_3D = 0.1, 0.5
"""Overlap (intersection over union) up to which a 2D relation counts fully, and from which a 3D relation does."""
SAME_OBJECT = 0.9
"""Overlap, or share of either box, from which T2I-CompBench takes two boxes of one class for one object."""
DEAD_ZONE = 0.1
"""GenEval's `position_threshold`: share of both sizes by which the distance of two centres is shortened."""

NEAR = ("on side of", "next to", "near")
RELATIONS_2D = (*NEAR, "on the left of", "on the right of", "on the bottom of", "on the top of", "on top of")
RELATIONS_3D = ("in front of", "behind", "hidden by", "hidden")


@dataclass(frozen=True)
class Box:
    """A box in pixels of the picture; `top` is above `bottom`."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def size(self) -> tuple[float, float]:
        """Width and height, at least 0."""
        return max(0.0, self.right - self.left), max(0.0, self.bottom - self.top)

    @property
    def area(self) -> float:
        """Width times height."""
        return self.size[0] * self.size[1]

    @property
    def centre(self) -> tuple[float, float]:
        """Its middle, to the right and down."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def shared(self, other: Box) -> float:
        """Area that lies in both."""
        left, top = max(self.left, other.left), max(self.top, other.top)
        return Box(left, top, min(self.right, other.right), min(self.bottom, other.bottom)).area

    def overlap(self, other: Box) -> float:
        """Intersection over union; 0 for two empty boxes."""
        union = self.area + other.area - self.shared(other)
        return self.shared(other) / union if union > 0 else 0.0


@dataclass(frozen=True)
class Detection:
    """One object that a detector found: what it was asked for, its confidence, its box, its colour if named."""

    label: str
    score: float
    box: Box
    color: str | None = None


Depth = NDArray[Any]
"""[H, W] nearness of every pixel: larger is nearer."""


def best(found: Iterable[Detection], label: str) -> Detection | None:
    """Return the most confident detection of a label, the first of several."""
    return max((one for one in found if one.label == label), key=lambda one: one.score, default=None)


def distinct(found: Sequence[Detection]) -> list[Detection]:
    """Return detections without those that cover the same object again, as T2I-CompBench counts them."""
    kept: list[Detection] = []
    for one in found:
        if not any(one.label == other.label and _same(one.box, other.box) for other in kept):
            kept.append(one)
    return kept


def suppressed(found: Sequence[Detection], overlap: float = 0.5) -> list[Detection]:
    """Return detections, the most confident first, without those that overlap a kept one of their label by more.

    Detectors of an open vocabulary give several boxes for one object, those of the benchmarks do not.
    """
    kept: list[Detection] = []
    for one in sorted(found, key=lambda each: -each.score):
        if not any(one.label == other.label and one.box.overlap(other.box) > overlap for other in kept):
            kept.append(one)
    return kept


def _same(a: Box, b: Box) -> bool:
    shared = a.shared(b)
    parts = [shared / box.area for box in (a, b) if box.area > 0]
    return a.overlap(b) > SAME_OBJECT or any(part > SAME_OBJECT for part in parts)


def in_plane(first: Box, relation: str, second: Box) -> float:
    """Return how well `first` is in a 2D relation to `second`, from 0 to 1, by T2I-CompBench's rule.

    The distance of the centres must point that way more than any other; overlap above `OVERLAP_2D` lessens the score.
    Near means within `DISTANCE` on one axis, beyond that in proportion to the larger distance.
    """
    right, down = first.centre[0] - second.centre[0], first.centre[1] - second.centre[1]
    if relation in NEAR:
        if min(abs(right), abs(down)) < DISTANCE:
            return 1.0
        return DISTANCE / max(abs(right), abs(down))
    along, across = {
        "on the left of": (-right, down),
        "on the right of": (right, down),
        "on the top of": (-down, right),
        "on top of": (-down, right),
        "on the bottom of": (down, right),
    }[relation]
    if along <= abs(across):
        return 0.0
    overlap = first.overlap(second)
    return 1.0 if overlap < OVERLAP_2D else OVERLAP_2D / overlap


def in_depth(first: Box, relation: str, second: Box, depth: Depth) -> float:
    """Return how well `first` is in front of, behind or hidden by `second`, by T2I-CompBench's rule.

    The mean nearness in the boxes decides; an overlap below `OVERLAP_3D` lessens the score, without any it is 0.
    """
    nearer = _mean(depth, first) - _mean(depth, second)
    if not (nearer > 0 if relation == "in front of" else nearer < 0):
        return 0.0
    return min(1.0, first.overlap(second) / OVERLAP_3D)


def _mean(depth: Depth, box: Box) -> float:
    """Return the mean nearness inside a box, 0 where the box has no pixel."""
    height, width = depth.shape
    rows = slice(max(0, int(box.top)), min(height, math.ceil(box.bottom)))
    columns = slice(max(0, int(box.left)), min(width, math.ceil(box.right)))
    inside = depth[rows, columns]
    return float(inside.mean()) if inside.size else 0.0


def directions(first: Box, second: Box) -> frozenset[str]:
    """Return all of `left of`, `right of`, `above`, `below` that hold of `first` and `second`, by GenEval's rule.

    The distance of the centres is shortened by `DEAD_ZONE` of both sizes; a direction holds if it makes up more than
    half of the distance, so that on a diagonal two of them do.
    """
    offset = [a - b for a, b in zip(first.centre, second.centre, strict=True)]
    sizes = [a + b for a, b in zip(first.size, second.size, strict=True)]
    shortened = [
        math.copysign(max(0.0, abs(distance) - DEAD_ZONE * size), distance)
        for distance, size in zip(offset, sizes, strict=True)
    ]
    if all(abs(distance) < 1e-3 for distance in shortened):
        return frozenset()
    right, down = (distance / math.hypot(*offset) for distance in shortened)
    held = {"left of": right < -0.5, "right of": right > 0.5, "above": down < -0.5, "below": down > 0.5}
    return frozenset(name for name, holds in held.items() if holds)
