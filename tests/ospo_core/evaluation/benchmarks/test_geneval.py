"""GenEval's verdicts on detections made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from ospo_core.evaluation.benchmarks.detections import Box, Detection
from ospo_core.evaluation.benchmarks.geneval import colored_labels, labels_of, reasons_against
from ospo_core.evaluation.benchmarks.prompts import Metadata


def metadata(include: list[dict[str, Any]], exclude: list[dict[str, Any]] | None = None) -> Metadata:
    return Metadata.model_validate({"tag": "t", "include": include, "exclude": exclude or [], "prompt": "p"})


def seen(label: str, x: float, score: float = 0.9, color: str | None = None) -> Detection:
    return Detection(label, score, Box(x, 0, x + 10, 10), color)


CAT, TWO = {"class": "cat", "count": 1}, {"class": "cat", "count": 2}
LEFT = [CAT, {"class": "dog", "count": 1, "position": ["left of", 0]}]
RED = [{**TWO, "color": "red"}]


@pytest.mark.parametrize(
    ("include", "exclude", "found", "said"),
    [
        ([CAT], None, [seen("cat", 0)], ""),
        ([CAT], None, [seen("dog", 0)], "0 cat, expected 1"),
        ([TWO], None, [seen("cat", 0)], "1 cat, expected 2"),
        ([TWO], None, [seen("cat", x) for x in (0, 20, 40)], ""),
        ([TWO], [{"class": "cat", "count": 3}], [seen("cat", x) for x in (0, 20, 40)], "expected fewer than 3"),
        (RED, None, [seen("cat", 0, color="red"), seen("cat", 9, color="blue")], "1 red cat, expected 2"),
        (RED, None, [seen("cat", 0, color="red"), seen("cat", 9, color="red"), seen("cat", 9, 0.1, "blue")], ""),
        (RED, None, [seen("cat", 0, 0.2, "red"), seen("cat", 9, color="red"), seen("cat", 9, 0.5, "blue")], "1 red"),
        (LEFT, None, [seen("cat", 50), seen("dog", 0)], ""),
        (LEFT, None, [seen("cat", 0), seen("dog", 50)], "dog is not left of"),
        (LEFT, None, [seen("dog", 50)], "nothing that dog could be left of"),
    ],
)
def test_a_verdict_names_what_is_wrong(
    include: list[dict[str, Any]], exclude: list[dict[str, Any]] | None, found: list[Detection], said: str
) -> None:
    """Only the most confident objects, as many as are expected, are asked for their colour and place."""
    against = reasons_against(metadata(include, exclude), found)
    assert (said in "; ".join(against)) if said else against == []


def test_only_what_matters_is_looked_for() -> None:
    some = metadata([{**CAT, "color": "red"}, {"class": "dog", "count": 1}], [{"class": "cat", "count": 2}])
    assert labels_of(some) == ("cat", "dog") and colored_labels(some) == {"cat"}
