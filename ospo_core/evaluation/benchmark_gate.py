"""The promotion gate with a benchmark as the measure: the scores of parent and child, paired by prompt.

The rule is that of the other metrics. The whole is that of the benchmark; T2I-CompBench, which has none, counts by the
mean over its categories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ospo_core.config.sections import PromotionConfig
from ospo_core.errors import StageError
from ospo_core.evaluation.benchmarks.summary import difference, paired, summarise
from ospo_core.evaluation.promotion import BENCHMARK, Decision, GroupFigures, explain
from ospo_core.schema import ALL, GATE, HELD_OUT

Row = Mapping[str, Any]

_SHOWN = ("metric", "judge", "images", "resamples", "overall", "categories", "sub_categories")


def decide_by_benchmark(
    name: str, benchmark: str, before: Sequence[Row], after: Sequence[Row], config: PromotionConfig, resamples: int
) -> Decision:
    """Compare the scores of parent and child, and decide whether to promote the child.

    Args:
        name: of the benchmark, for people.
        benchmark: name of its protocol.
        before, after: rows of table `benchmark` of parent and child; prompts without a score on either side are left
            out on both.
        config: margin and the largest drop of a category.
        resamples: of the bootstrap over prompts, within the categories.

    Raises:
        StageError: no prompt has a score of both models.
    """
    first, second = paired(before, after)
    if not first:
        raise StageError(
            "no prompt has a score of both parent and child",
            field="benchmark.name",
            value=name,
            remedy="Use another benchmark, another benchmark.scorer, or another promotion.metric",
        )
    parent, child = (summarise(benchmark, rows, whole=True)["groups"] for rows in (first, second))
    changes = difference(benchmark, first, second, resamples, whole=True)
    groups = {group: _figures(group, parent[group], child[group], changes[group]) for group in changes}
    overall = groups.pop(ALL)
    categories = tuple(groups[group] for group in sorted(groups))
    promote, reason = explain(overall, categories, config, f"the score on {name}")
    return Decision(
        promote=promote,
        reason=reason,
        metric=BENCHMARK,
        judge=f"the benchmark {name}",
        margin=config.margin,
        max_category_drop=config.max_category_drop,
        images=len(first),
        resamples=resamples,
        overall=overall,
        categories=categories,
        sub_categories=(),
    )


def gated_extra(extra: Mapping[str, Any], decision: Decision, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `extra` of an evaluation whose decision is that of a benchmark; its own figures stay beside it.

    `facts` says which benchmark it was, and who scored.
    """
    held_out = {name: extra["decision"][name] for name in _SHOWN}
    return {**extra, "decision": decision.model_dump(mode="json"), HELD_OUT: held_out, GATE: dict(facts)}


def _figures(
    name: str, parent: Mapping[str, float], child: Mapping[str, float], change: Mapping[str, float]
) -> GroupFigures:
    return GroupFigures(
        name=name,
        prompts=int(change["prompts"]),
        parent=parent["score"],
        parent_low=parent["low"],
        parent_high=parent["high"],
        child=child["score"],
        child_low=child["low"],
        child_high=child["high"],
        difference=change["difference"],
        difference_low=change["low"],
        difference_high=change["high"],
    )
