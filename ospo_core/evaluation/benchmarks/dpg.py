"""DPG-Bench's score of one picture: the share of questions answered yes, where a child counts only with its parents."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean

from ospo_core.evaluation.benchmarks.prompts import Proposition


def graph_score(graph: Sequence[Proposition], yes: Mapping[int, bool]) -> float:
    """Return the share of propositions that hold; one whose parent is answered no does not, whatever its own answer.

    Parents count by their own counted value, in the order of the graph, as in the authors' code: a grandchild falls
    with its grandparent where the parent stands before it.
    """
    counted = dict(yes)
    for one in graph:
        if not all(counted[parent] for parent in one.parents):
            counted[one.number] = False
    return fmean(counted[one.number] for one in graph)


def category_shares(graph: Sequence[Proposition], yes: Mapping[int, bool]) -> dict[str, float]:
    """Return the share of yes among the questions of each category, without regard to parents, as published."""
    groups: dict[str, list[bool]] = defaultdict(list)
    for one in graph:
        groups[one.category].append(yes[one.number])
    return {name: fmean(answers) for name, answers in groups.items()}
