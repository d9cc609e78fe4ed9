"""Pairs made row by row and prompt by prompt: what `ospo_core.selection.build_pairs` must give."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from ospo_core.artifacts.ids import derive_seed
from ospo_core.config.sections import SelectionConfig
from ospo_core.errors import StageError
from ospo_core.schema import Side
from ospo_core.selection.rules import NO_IMAGES
from ospo_core.selection.scoring import answer_score, image_score
from tests.support.simple_rules import Candidate, Dropped, Selected, select_pair

Row = Mapping[str, Any]
_ImageKey = tuple[int, str]


@dataclass
class SimplePairs:
    """Outcome of the pair rules on many prompts.

    Attributes:
        rows: one row a pair, fields of `TABLES["pairs"]`; masks are empty until they are computed.
        drops: reason (a key of `DROP_REASONS`) to number of prompts.
        items: prompts seen; always `len(rows)` plus the sum of `drops`.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    drops: Counter[str] = field(default_factory=Counter)
    items: int = 0


def simple_pairs(
    perturbations: Iterable[Row], images: Iterable[Row], scores: Iterable[Row], config: SelectionConfig
) -> SimplePairs:
    """Collect the pairs and the drops of `iter_pairs`."""
    result = SimplePairs()
    for outcome in iter_pairs(perturbations, images, scores, config):
        result.items += 1
        if isinstance(outcome, Dropped):
            result.drops[outcome.reason] += 1
        else:
            result.rows.append(outcome)
    return result


def iter_pairs(
    perturbations: Iterable[Row], images: Iterable[Row], scores: Iterable[Row], config: SelectionConfig
) -> Iterator[dict[str, Any] | Dropped]:
    """Yield a pair row or a `Dropped` for each prompt that has perturbations.

    The three tables must list their prompts in the same order, each prompt's rows together; prompts may be missing
    from `images` and `scores`. That is the order in which the stages write them.

    Raises:
        StageError: rows are out of order or do not fit each other.
    """
    images_of, scores_of = _Aligned(images, "images"), _Aligned(scores, "scores")
    for item_id, group in groupby(perturbations, key=_item_id):
        image_rows, score_rows = images_of.take(item_id), scores_of.take(item_id)
        yield _pair_of_item(sorted(group, key=lambda row: row["variant"]), image_rows, score_rows, config)
    images_of.check_exhausted()
    scores_of.check_exhausted()


def candidates_of(score_rows: Sequence[Row]) -> list[Candidate]:
    """Read the candidates of one prompt from its rows of the scores table."""
    return [_candidate(row) for row in score_rows]


def _candidate(row: Row) -> Candidate:
    """Read one candidate from a row of the scores table."""
    negative: dict[int, tuple[float, ...]] = {}
    for answer in row["negative_answers"] or ():
        score = answer_score(answer["p_yes"], answer["p_no"])
        negative[answer["variant"]] = (*negative.get(answer["variant"], ()), score)
    answers = tuple(answer_score(answer["p_yes"], answer["p_no"]) for answer in row["answers"] or ())
    return Candidate(
        variant=row["variant"],
        side=Side(row["side"]),
        answers=answers,
        score=row["score"] if row["score"] is not None else image_score(answers),
        logprob_base=row["logprob_base"],
        logprob_negatives=tuple(row["logprob_negatives"] or ()),
        negative_answers=negative,
    )


def _pair_of_item(
    perturbations: Sequence[Row], images: Sequence[Row], scores: Sequence[Row], config: SelectionConfig
) -> dict[str, Any] | Dropped:
    """Apply the rule to one prompt; only images that were both rendered and scored take part."""
    image_of: dict[_ImageKey, Row] = {(row["variant"], row["side"]): row for row in images}
    known = [row for row in scores if (row["variant"], row["side"]) in image_of]
    if not known:
        return Dropped(NO_IMAGES)
    item_id = perturbations[0]["item_id"]
    variants = [row["variant"] for row in perturbations]
    outcome = select_pair(candidates_of(known), variants, config, draw=derive_seed("unfiltered pair", item_id))
    if isinstance(outcome, Dropped):
        return outcome
    negative = next(row for row in perturbations if row["variant"] == outcome.negative_variant)
    score_of = {(row["variant"], row["side"]): row for row in known}
    rule = config.rule if config.filtering else "unfiltered"
    return {**_texts(negative), **_sides(outcome, image_of, score_of), "rule": rule}


def _texts(negative: Row) -> dict[str, Any]:
    """Return the columns of a pair that come from the perturbation used as its text negative."""
    same = ("item_id", "category", "sub_category", "prompt", "negative_prompt")
    return {**{name: negative[name] for name in same}, "negative_kind": negative["kind"]}


def _sides(pair: Selected, image_of: Mapping[_ImageKey, Row], score_of: Mapping[_ImageKey, Row]) -> dict[str, Any]:
    """Return the columns of a pair that describe its two images."""
    columns: dict[str, Any] = {"image_logprob_gap": pair.image_gap, "text_logprob_gap": pair.text_gap}
    for place, candidate in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        key = (candidate.variant, candidate.side.value)
        columns |= {
            f"{place}_variant": candidate.variant,
            f"{place}_side": candidate.side.value,
            f"{place}_tokens": image_of[key]["tokens"],
            f"{place}_image": image_of[key]["image"],
            f"{place}_answers": score_of[key]["answers"],
            f"{place}_score": candidate.score,
            f"{place}_mask": None,
        }
    return columns


class _Aligned:
    """Rows of a table handed out prompt by prompt, in step with another table.

    Args:
        rows: rows with `item_id`, each prompt's rows together.
        table: name of the table, for the error.
    """

    def __init__(self, rows: Iterable[Row], table: str) -> None:
        self._groups = ((key, list(group)) for key, group in groupby(rows, key=_item_id))
        self._next: tuple[str, list[Row]] | None = next(self._groups, None)
        self._table = table

    def take(self, item_id: str) -> list[Row]:
        """Return the rows of `item_id`, or none if this table goes on with a later prompt."""
        if self._next is None or self._next[0] != item_id:
            return []
        rows = self._next[1]
        self._next = next(self._groups, None)
        return rows

    def check_exhausted(self) -> None:
        """Make sure that every row found its prompt.

        Raises:
            StageError: rows are left, so the tables do not list their prompts in the same order.
        """
        if self._next is not None:
            raise StageError(
                "rows belong to a prompt without perturbations, or out of order",
                field=f"table {self._table}, item_id",
                value=self._next[0],
                remedy="Give all tables in the order of the perturbations table",
            )


def _item_id(row: Row) -> str:
    """Return the prompt that a row belongs to."""
    return str(row["item_id"])
