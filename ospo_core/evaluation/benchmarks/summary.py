"""Category means with intervals, the paired difference of two models, and what was not scored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ospo_core.errors import ConfigError
from ospo_core.evaluation.benchmarks.protocol import DPG, GENEVAL, T2I_COMPBENCH
from ospo_core.evaluation.benchmarks.scoring import ORACLE
from ospo_core.evaluation.statistics import Interval, wilson_interval
from ospo_core.schema import ALL

RESAMPLES = 2000
_SEED = 0

Row = Mapping[str, Any]
Groups = dict[str, dict[str, float]]
"""Category to prompt to mean score over its pictures."""


def summarise(benchmark: str, rows: Sequence[Row], whole: bool = False) -> dict[str, Any]:
    """Return, for every category and where there is one for the whole, prompts, mean score and 95 % interval.

    The whole is the mean over GenEval's categories, and over the prompts elsewhere; T2I-CompBench has none. Scores of
    right or wrong get Wilson's interval, others that of a bootstrap over prompts.

    Args:
        benchmark: name of the protocol.
        rows: of table `benchmark`; those without a score are left out.
        whole: give T2I-CompBench the mean over its categories as the whole, as GenEval has it.
    """
    groups = _groups(benchmark, rows)
    binary = all(row["score"] in (0.0, 1.0) for row in rows if row["score"] is not None)
    found = {name: _group([list(values.values())], binary) for name, values in sorted(groups.items()) if values}
    all_of_it = _whole(benchmark, rows, groups, whole)
    if all_of_it and any(all_of_it):
        found[ALL] = _group(all_of_it, binary and len(all_of_it) == 1)
    return {"groups": found, "binary": binary}


def difference(
    benchmark: str, before: Sequence[Row], after: Sequence[Row], resamples: int = RESAMPLES, whole: bool = False
) -> dict[str, dict[str, float]]:
    """Return the mean of `after - before` by category, paired by prompt, with its 95 % bootstrap interval.

    Prompts without a score on either side are left out on both; `whole` is that of `summarise`.

    Raises:
        ConfigError: the two have no prompt in common.
    """
    first, second = paired(before, after)
    if not first:
        raise ConfigError("the two models have no scored prompt in common", field="--against", remedy="Run both again")
    one, two = _groups(benchmark, first), _groups(benchmark, second)
    changes = {
        name: {item: two[name][item] - value for item, value in values.items() if item in two.get(name, {})}
        for name, values in one.items()
    }
    found = {name: _change([list(values.values())], resamples) for name, values in sorted(changes.items()) if values}
    wholes = _whole(benchmark, first, one, whole), _whole(benchmark, second, two, whole)
    if all(wholes):
        pairs = zip(*wholes, strict=True)
        found[ALL] = _change([[b - a for a, b in zip(x, y, strict=True)] for x, y in pairs], resamples)
    return found


def paired(before: Sequence[Row], after: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Return the rows of both models about the prompts that have a score on both sides."""
    known = {row["item_id"] for row in before if row["score"] is not None}
    known &= {row["item_id"] for row in after if row["score"] is not None}
    first, second = ([row for row in rows if row["item_id"] in known] for rows in (before, after))
    return first, second


def stratified_interval(groups: Iterable[Sequence[float]], resamples: int = RESAMPLES, seed: int = _SEED) -> Interval:
    """Return the 95 % percentile bootstrap interval of the mean of the groups' means, resampling inside each group."""
    generator = np.random.default_rng(seed)
    means: list[NDArray[np.float64]] = []
    for group in groups:
        values = np.asarray(group, dtype=np.float64)
        chances = np.full(len(values), 1 / len(values))
        means.append(generator.multinomial(len(values), chances, size=resamples) @ values / len(values))
    low, high = np.quantile(np.mean(means, axis=0), [0.025, 0.975])
    return Interval(float(low), float(high))


def _groups(benchmark: str, rows: Sequence[Row]) -> Groups:
    """Return the mean score of every prompt by category; DPG-Bench's categories are those of its questions."""
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["score"] is None:
            continue
        parts = {part["name"]: part["value"] for part in row["parts"] or []}
        named = parts if benchmark == DPG else {row["category"]: row["score"]}
        for name, value in named.items():
            scores[name][row["item_id"]].append(value)
    return {name: {item: fmean(values) for item, values in sorted(items.items())} for name, items in scores.items()}


def _whole(benchmark: str, rows: Sequence[Row], groups: Groups, always: bool) -> list[list[float]]:
    """Return the prompts' scores whose mean, or the mean of whose means, is the score of the whole; empty for none."""
    if benchmark == T2I_COMPBENCH and not always:
        return []
    if benchmark in (GENEVAL, T2I_COMPBENCH):
        return [list(values.values()) for _, values in sorted(groups.items())]
    scores: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row["score"] is not None:
            scores[row["item_id"]].append(row["score"])
    return [[fmean(values) for _, values in sorted(scores.items())]] if scores else []


def _group(groups: Sequence[Sequence[float]], binary: bool) -> dict[str, float]:
    mean, prompts = fmean(fmean(group) for group in groups), sum(len(group) for group in groups)
    interval = wilson_interval(mean, prompts) if binary else stratified_interval(groups)
    return {"prompts": prompts, "score": mean, "low": interval.low, "high": interval.high}


def _change(groups: Sequence[Sequence[float]], resamples: int) -> dict[str, float]:
    interval = stratified_interval(groups, resamples)
    mean, prompts = fmean(fmean(group) for group in groups), sum(len(group) for group in groups)
    return {"prompts": prompts, "difference": mean, "low": interval.low, "high": interval.high}


def scored_by(benchmark: str, names: Mapping[str, str], judge: str, rows: Sequence[Row]) -> str:
    """Return who scored, and whether these are the scores of the benchmark's own evaluator, as a sentence.

    Args:
        benchmark: name of the protocol.
        names: model by job.
        judge: who judged instead, in words; empty for none.
        rows: of table `benchmark`.
    """
    if any(part["name"] == ORACLE for row in rows[:1] for part in row["parts"] or []):
        return "Scored by the oracle of the embedded world, which reads the objects back from the pixels."
    by = judge or ", ".join(f"{name} ({job})" for job, name in names.items())
    if benchmark not in (GENEVAL, DPG, T2I_COMPBENCH):
        return f"Scored by {by}."
    return (
        f"Scored by {by}. This is not the evaluator of {benchmark}: compare these scores with each other, not with "
        "published ones; for those, run the benchmark's own tools on the pictures (`--out`)."
    )
