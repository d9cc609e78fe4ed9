"""The worked examples of CONTRIBUTING.md do what the text says, as they stand there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ospo_core.config.sections import SelectionConfig
from ospo_core.selection import rules
from tests.support.candidates import BASE, NEGATIVE, image, select_pair
from tests.support.simple_rules import Dropped, Selected

GUIDE = (Path(__file__).resolve().parent.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> SelectionConfig:
    """A configuration that asks for the example rule, which is entered in `RULES` as the guide says."""
    [code] = re.findall(r"^```python\n(def \w+\(prompts: Prompts,.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    namespace: dict[str, Any] = dict(vars(rules))
    exec(code, namespace)
    name = code.removeprefix("def ").partition("(")[0]
    monkeypatch.setitem(rules.RULES, name, namespace[name])
    return SelectionConfig().model_copy(update={"rule": name})


def test_the_example_rule_pairs_the_best_image_with_the_worst(config: SelectionConfig) -> None:
    best, worst = image(0, BASE, [0.9, 0.9]), image(1, NEGATIVE, [-0.9, -0.9])
    others = [image(1, BASE, [0.8, 0.8]), image(0, NEGATIVE, [0.8, -0.8]), image(2, NEGATIVE, [0.9, 0.8])]
    pair = select_pair([best, worst, *others], [0, 1, 2], config)
    assert isinstance(pair, Selected)
    assert (pair.chosen, pair.rejected, pair.negative_variant) == (best, worst, 0)


def test_the_example_rule_counts_what_it_drops(config: SelectionConfig) -> None:
    good, not_bad = image(0, BASE, [0.9]), image(0, NEGATIVE, [0.4])
    assert select_pair([good, not_bad], [0, 1, 2], config) == Dropped(rules.NO_REJECTED_CANDIDATE)
