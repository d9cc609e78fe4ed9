"""One prompt's candidates, written briefly, and put through `build_pairs` as the tables of a shard with one prompt."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from ospo_core.artifacts.ids import derive_seed
from ospo_core.config.sections import SelectionConfig
from ospo_core.schema import Side, table_from_rows
from ospo_core.selection.pairs import PairTables, build_pairs
from ospo_core.selection.scoring import image_score
from tests.support.simple_rules import Candidate, Dropped, Selected

BASE, NEGATIVE = Side.BASE, Side.NEGATIVE
Rows = list[dict[str, Any]]


def image(
    variant: int,
    side: Side,
    answers: Sequence[float],
    logprob: float = -3.0,
    negatives: Sequence[float] = (-3.0, -3.0, -3.0),
    about: Mapping[int, Sequence[float]] | None = None,
) -> Candidate:
    """Return a candidate whose score is the mean of its answers; `about` are answers to the negatives' questions."""
    return Candidate(
        variant=variant,
        side=side,
        answers=tuple(answers),
        score=image_score(answers),
        logprob_base=logprob,
        logprob_negatives=tuple(negatives),
        negative_answers={key: tuple(value) for key, value in (about or {}).items()},
    )


def select_pair(
    candidates: Sequence[Candidate], variants: Sequence[int], config: SelectionConfig, draw: int = 0
) -> Selected | Dropped:
    """Return what `build_pairs` makes of these candidates; `draw` is the number drawn, for up to three variants."""
    made = pairs_of(*rows_of(_item_that_draws(draw), candidates, variants), config)
    assert made.items == made.table.num_rows + made.drops.total() == 1
    if made.drops:
        return Dropped(next(iter(made.drops)))
    [row] = made.table.to_pylist()
    by_place = {(candidate.variant, candidate.side): candidate for candidate in candidates}
    return Selected(
        chosen=by_place[row["chosen_variant"], Side(row["chosen_side"])],
        rejected=by_place[row["rejected_variant"], Side(row["rejected_side"])],
        negative_variant=int(row["negative_prompt"]),
        image_gap=row["image_logprob_gap"],
        text_gap=row["text_logprob_gap"],
    )


def pairs_of(perturbations: Rows, images: Rows, scores: Rows, config: SelectionConfig) -> PairTables:
    """Return what `build_pairs` makes of these rows."""
    return build_pairs(
        table_from_rows("perturbations", perturbations),
        table_from_rows("images", images),
        table_from_rows("scores", scores),
        config,
    )


def rows_of(item: str, candidates: Sequence[Candidate], variants: Sequence[int]) -> tuple[Rows, Rows, Rows]:
    """Return the rows of perturbations, images and scores; a negative prompt is its variant's number."""
    texts = dict.fromkeys(("category", "sub_category", "kind", "prompt", "dense_prompt", "dense_negative_prompt"), "")
    perturbed = [{"item_id": item, "variant": v, "seed": v, **texts, "negative_prompt": str(v)} for v in variants]
    return perturbed, [_image(item, one) for one in candidates], [_scores(item, one) for one in candidates]


def _item_that_draws(draw: int) -> str:
    """Return an item for which the number drawn picks the same of one, two or three variants as `draw` does."""
    names = (f"item{number}" for number in itertools.count())
    return next(name for name in names if derive_seed("unfiltered pair", name) % 6 == draw % 6)


def _image(item: str, candidate: Candidate) -> dict[str, Any]:
    place = {"item_id": item, "variant": candidate.variant, "side": candidate.side.value}
    picture = {"bytes": b"", "path": f"{item}-{candidate.variant}-{candidate.side}"}
    tokens = [candidate.variant, len(candidate.answers)]
    return {**place, "dense_prompt": "", "seed": 0, "tokens": tokens, "image": picture, "mean_logprob": 0.0}


def _scores(item: str, candidate: Candidate) -> dict[str, Any]:
    about = [(variant, s) for variant, answers in candidate.negative_answers.items() for s in answers]
    return {
        "item_id": item,
        "variant": candidate.variant,
        "side": candidate.side.value,
        "answers": [_answer(s) for s in candidate.answers],
        "negative_answers": [{"variant": variant, **_answer(s)} for variant, s in about],
        "score": candidate.score,
        "logprob_base": candidate.logprob_base,
        "logprob_negatives": list(candidate.logprob_negatives),
    }


def _answer(s: float) -> dict[str, Any]:
    """Return an answer whose score is `s` to the last bit."""
    return {"question": "?", "p_yes": s, "p_no": 0.0}
