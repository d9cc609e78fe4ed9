"""GenEval's verdict on one picture, from detected objects."""

from __future__ import annotations

from collections.abc import Sequence

from ospo_core.evaluation.benchmarks.detections import Detection, directions
from ospo_core.evaluation.benchmarks.prompts import Metadata, Wanted

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
MOST = 16
"""Objects of one class that are looked at, the most confident ones."""


def reasons_against(metadata: Metadata, found: Sequence[Detection]) -> list[str]:
    """Return why a picture does not show what a prompt says; empty if it does.

    Of each class the `count` most confident objects must be there, have the colour, and be in the relation to all
    objects of the earlier entry. Of the classes of `exclude` there must be fewer than `count`.
    """
    against: list[str] = []
    accepted: list[list[Detection] | None] = []
    for wanted in metadata.include:
        objects = objects_of(found, wanted.cls)[: wanted.count]
        problem = _problem(wanted, objects, accepted)
        against += [problem] if problem else []
        accepted.append(None if problem else objects)
    for wanted in metadata.exclude:
        count = len(objects_of(found, wanted.cls))
        if count >= wanted.count:
            against.append(f"{count} {wanted.cls}, expected fewer than {wanted.count}")
    return against


def objects_of(found: Sequence[Detection], label: str) -> list[Detection]:
    """Return the objects of a class, the most confident first, at most `MOST`."""
    return sorted((one for one in found if one.label == label), key=lambda one: -one.score)[:MOST]


def _problem(wanted: Wanted, objects: Sequence[Detection], earlier: Sequence[list[Detection] | None]) -> str:
    """Return what is wrong with the objects of one entry, or an empty text."""
    if len(objects) < wanted.count:
        return f"{len(objects)} {wanted.cls}, expected {wanted.count}"
    if wanted.color is not None:
        right = sum(one.color == wanted.color for one in objects)
        if right < wanted.count:
            seen = ", ".join(sorted({one.color or "none" for one in objects}))
            return f"{right} {wanted.color} {wanted.cls}, expected {wanted.count}; colours: {seen}"
    if wanted.position is not None:
        relation, place = wanted.position
        others = earlier[place]
        if others is None:
            return f"nothing that {wanted.cls} could be {relation}"
        if not all(relation in directions(one.box, other.box) for one in objects for other in others):
            return f"{wanted.cls} is not {relation} the other"
    return ""


def labels_of(metadata: Metadata) -> tuple[str, ...]:
    """Return the classes to look for."""
    return tuple(dict.fromkeys(wanted.cls for wanted in (*metadata.include, *metadata.exclude)))


def colored_labels(metadata: Metadata) -> frozenset[str]:
    """Return the classes whose colours matter."""
    return frozenset(wanted.cls for wanted in metadata.include if wanted.color is not None)
