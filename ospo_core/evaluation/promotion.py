"""The promotion gate: is the child better than its parent on the same prompts (docs/architecture.md, decision 8)?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from ospo_core.artifacts.ids import derive_seed
from ospo_core.config.sections import EvaluationConfig, PromotionConfig
from ospo_core.errors import StageError
from ospo_core.evaluation.judges import JudgedBy, judge_quality
from ospo_core.evaluation.people_gate import PEOPLE, await_people
from ospo_core.evaluation.statistics import paired_bootstrap, wilson_interval
from ospo_core.schema import ALL, CHILD, PARENT

Row = Mapping[str, Any]

BENCHMARK = "benchmark"
"""Value of `promotion.metric`: a benchmark decides, see `ospo_core.evaluation.benchmark_gate`."""


class GroupFigures(BaseModel):
    """Accuracy before and after training in one group of prompts; shares from 0 to 1 with 95 % intervals.

    The intervals of `parent` and `child` are Wilson's with one observation per prompt (several samples of a prompt are
    not independent); that of `difference` is a paired bootstrap over prompts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    prompts: int
    parent: float
    parent_low: float
    parent_high: float
    child: float
    child_low: float
    child_high: float
    difference: float
    difference_low: float
    difference_high: float


class Decision(BaseModel):
    """The gate's verdict, the sentence that explains it, who judged (in words), and the figures it is based on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    promote: bool
    reason: str
    metric: str
    judge: str
    margin: float
    max_category_drop: float
    images: int
    resamples: int
    overall: GroupFigures
    categories: tuple[GroupFigures, ...]
    sub_categories: tuple[GroupFigures, ...]


class _Prompt(NamedTuple):
    """Mean accuracy of one prompt over its samples, before and after."""

    category: str
    sub_category: str
    parent: float
    child: float


def metric_column(rows: Sequence[Row], metric: str) -> tuple[str, str]:
    """Return (metric, column) of the deciding verdict: `auto` is the oracle if it judged every row, otherwise self-VQA.

    Raises:
        StageError: `metric` is `oracle`, but the oracle did not judge every picture.
    """
    complete = bool(rows) and all(row["oracle_correct"] is not None for row in rows)
    if metric == "oracle" and not complete:
        raise StageError(
            "the oracle did not judge every picture",
            field="promotion.metric",
            value=metric,
            remedy="Use promotion.metric=vqa (or auto) for models and prompts outside the embedded world",
        )
    if metric in (
        PEOPLE,
        BENCHMARK,
    ):  # these decide, and the figures of held-out prompts beside them are the usual ones
        metric = "auto"
    chosen = ("oracle" if complete else "vqa") if metric == "auto" else metric
    return chosen, f"{chosen}_correct"


def judge_in_words(metric: str, judged_by: JudgedBy | None) -> str:
    """Return who gave the verdicts of a metric, as part of a sentence."""
    if metric == "oracle":
        return "the oracle, which reads the objects back from the pixels"
    return judged_by.in_words if judged_by is not None else "answers to yes/no questions"


def decide(
    parent_rows: Iterable[Row],
    child_rows: Iterable[Row],
    config: PromotionConfig,
    resamples: int = 2000,
    seed: int = 2026,
    judged_by: JudgedBy | None = None,
) -> Decision:
    """Compare two evaluations paired by prompt, sample and seed, and decide whether to promote the child.

    The child is promoted if the lower end of the difference's 95 % interval exceeds `config.margin` and no category's
    accuracy falls by more than `config.max_category_drop`. `judged_by` is named in the reason if it decided.

    Raises:
        StageError: there are no rows, the evaluations differ in prompts or seeds, or the oracle is missing.
    """
    parents, children = list(parent_rows), list(child_rows)
    metric, column = metric_column([*parents, *children], config.metric)
    prompts = _paired_prompts(parents, children, column)

    def grouped(name_of: Callable[[_Prompt], str]) -> tuple[GroupFigures, ...]:
        groups: dict[str, list[_Prompt]] = defaultdict(list)
        for prompt in prompts:
            groups[name_of(prompt)].append(prompt)
        return tuple(_group_figures(name, groups[name], resamples, seed) for name in sorted(groups))

    (overall,) = grouped(lambda _: ALL)
    categories = grouped(lambda prompt: prompt.category)
    promote, reason = explain(overall, categories, config, "accuracy")
    judge = judge_in_words(metric, judged_by)
    return Decision(
        promote=promote,
        reason=reason if metric == "oracle" or judged_by is None else f"{reason}; judged by {judge}",
        metric=metric,
        judge=judge,
        margin=config.margin,
        max_category_drop=config.max_category_drop,
        images=len(parents),
        resamples=resamples,
        overall=overall,
        categories=categories,
        sub_categories=grouped(lambda prompt: prompt.sub_category),
    )


def evaluation_extra(
    parent_rows: Iterable[Row],
    child_rows: Iterable[Row],
    evaluation: EvaluationConfig,
    promotion: PromotionConfig,
    judged_by: JudgedBy | None = None,
) -> dict[str, Any]:
    """Return the `extra` of an evaluation manifest: `decision`, and `judge` per model if there is an oracle.

    The report reads exactly these keys.
    """
    parents, children = list(parent_rows), list(child_rows)
    decision = decide(parents, children, promotion, evaluation.bootstrap, evaluation.seed, judged_by)
    qualities = {label: judge_quality(rows) for label, rows in ((PARENT, parents), (CHILD, children))}
    extra = {
        "decision": decision.model_dump(mode="json"),
        "judge": {label: quality.model_dump(mode="json") for label, quality in qualities.items() if quality},
    }
    if promotion.metric != PEOPLE:
        return extra
    return await_people(extra, promotion.people_prompts, {row["item_id"]: row["category"] for row in parents})


def _paired_prompts(parents: Sequence[Row], children: Sequence[Row], column: str) -> list[_Prompt]:
    """Return the prompts in the order of their ids; refuses evaluations that do not pair up."""
    before, after = (
        {(row["item_id"], row["sample"], row["seed"], row["guidance"]): row for row in rows}
        for rows in (parents, children)
    )
    if not before or before.keys() != after.keys():
        raise StageError(
            "parent and child were not evaluated on the same prompts, samples and seeds",
            field="evaluation",
            value=f"{len(before)} and {len(after)} pictures, {len(before.keys() & after.keys())} in common",
            remedy="Evaluate both with the same evaluation.* options (--refresh evaluation)",
        )
    pairs: dict[str, list[tuple[Row, Row]]] = defaultdict(list)
    for key, row in before.items():
        pairs[key[0]].append((row, after[key]))
    return [
        _Prompt(
            pairs[item][0][0]["category"],
            pairs[item][0][0]["sub_category"],
            parent=sum(bool(row[column]) for row, _ in pairs[item]) / len(pairs[item]),
            child=sum(bool(row[column]) for _, row in pairs[item]) / len(pairs[item]),
        )
        for item in sorted(pairs)
    ]


def _group_figures(name: str, members: Sequence[_Prompt], resamples: int, seed: int) -> GroupFigures:
    before, after = [prompt.parent for prompt in members], [prompt.child for prompt in members]
    parent, child = sum(before) / len(before), sum(after) / len(after)
    (parent_low, parent_high), (child_low, child_high) = (wilson_interval(x, len(members)) for x in (parent, child))
    gain = paired_bootstrap(before, after, resamples, derive_seed("bootstrap", seed, name))
    return GroupFigures(
        name=name,
        prompts=len(members),
        parent=parent,
        parent_low=parent_low,
        parent_high=parent_high,
        child=child,
        child_low=child_low,
        child_high=child_high,
        difference=child - parent,
        difference_low=gain.low,
        difference_high=gain.high,
    )


def explain(
    overall: GroupFigures, categories: Sequence[GroupFigures], config: PromotionConfig, measure: str
) -> tuple[bool, str]:
    """Return whether to promote, and why; `measure` is what the figures are, as the subject of a sentence."""
    interval = f"[{100 * overall.difference_low:+.1f}, {100 * overall.difference_high:+.1f}]"
    if overall.difference == 0:
        change = f"{measure} stayed at {100 * overall.child:.1f} %"
    else:
        verb, by = "rose" if overall.difference > 0 else "fell", _points(abs(overall.difference))
        change = f"{measure} {verb} from {100 * overall.parent:.1f} % to {100 * overall.child:.1f} %, by {by}"
    if overall.difference_low <= config.margin:
        margin = f"does not lie above the margin of {_points(config.margin)}"
        return False, f"{change}, and the 95 % interval of the change, {interval}, {margin}"
    fallen = [group for group in categories if -group.difference > config.max_category_drop + 1e-12]
    if not fallen:
        return True, f"{change}; 95 % interval {interval}"
    names = ", ".join(f"{group.name} by {_points(-group.difference)}" for group in fallen)
    return False, f"{measure} fell in {names}; at most {_points(config.max_category_drop)} is allowed"


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"
