"""From the model's answers to the numbers that the rules compare (docs/method.md, section 3.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import polars as pl
import pyarrow as pa

from ospo_core.config.sections import SelectionConfig
from ospo_core.schema import Side


def answer_score(p_yes: float, p_no: float) -> float:
    """Return `s_k = p(yes) - p(no)` in [-1, 1]; each `p` is already the maximum over the spellings of its word."""
    return p_yes - p_no


def image_score(answers: Sequence[float]) -> float:
    """Return `S`, the mean of the answer scores `s_k`, in [-1, 1].

    The sum is exact (`math.fsum`), so the order of the questions does not matter. An image that was asked nothing
    scores 0, which says neither yes nor no; the rules never use such an image.
    """
    return math.fsum(answers) / len(answers) if answers else 0.0


def is_yes(answer: float) -> bool:
    """Return whether the model answered yes, `p(yes) > p(no)`; a tie is not a yes."""
    return answer > 0.0


def could_be_chosen(side: str, answers: Sequence[float], config: SelectionConfig) -> bool:
    """Return whether the rule could choose an image with these `s_k`, whatever `sides` is, at any sensible threshold.

    Only such an image is compared with the perturbed prompts: `l(y|x~)` says how hard they are for the chosen image.
    """
    floor = choice_floor(config)
    if floor is None:
        return side == Side.BASE.value
    if config.rule == "v3":
        return image_score(answers) >= floor and any(map(is_yes, answers))
    return bool(answers) and all(s > floor for s in answers)


def choice_floor(config: SelectionConfig) -> float | None:
    """Return what an image must reach to be chosen by v2 (every `s_k`) or v3 (`S`); None for rules without a threshold.

    It is 0 for all thresholds from 0, so that another one of them needs no new scores.
    """
    if not config.filtering or config.rule == "best_of_n":
        return None
    return min(0.0, config.v3_score_threshold if config.rule == "v3" else config.v2_answer_threshold)


def read_scores(table: pa.Table) -> pl.DataFrame:
    """Return the scores table with every answer reduced to its `s_k`: one row per image, in the order of `table`.

    Columns:
        item_id, variant, side: which image it is.
        score: `S`; where the table has none, the mean of the answers.
        lowest, highest: the extreme `s_k` of the base prompt's questions; null if none were asked.
        logprob: `l(y|x)`, mean log-probability of the image tokens (nats per token) under the base prompt.
        logprob_negatives: list of `l(y|x~)`, one per perturbed prompt, by variant; empty where it was not computed.
        about: list of `{variant, s}`: the `s_k` of the perturbed prompts' questions about this image.
        finite: whether all these numbers are finite; a missing one is not.
    """
    answer = pl.element().struct
    s = (answer.field("p_yes") - answer.field("p_no")).fill_null(math.nan)
    scores = pl.DataFrame(table).select(
        "item_id",
        "variant",
        "side",
        "score",
        pl.col("answers").list.eval(s),
        pl.col("logprob_base").fill_null(math.nan).alias("logprob"),
        pl.col("logprob_negatives").fill_null([]).list.eval(pl.element().fill_null(math.nan)),
        pl.col("negative_answers").list.eval(pl.struct(answer.field("variant"), s.alias("s"))).alias("about"),
    )
    if scores["score"].null_count():
        means = [image_score(answers or ()) for answers in scores["answers"].to_list()]
        scores = scores.with_columns(pl.col("score").fill_null(pl.Series(means, dtype=pl.Float64)))
    lists = (pl.col("answers"), pl.col("logprob_negatives"), pl.col("about").list.eval(answer.field("s")))
    sums = [numbers.list.sum().fill_null(0.0) for numbers in lists]  # finite if and only if every summand is
    return scores.select(
        pl.exclude("answers"),
        lowest=pl.col("answers").list.min(),
        highest=pl.col("answers").list.max(),
        finite=pl.all_horizontal(number.is_finite() for number in (pl.col("score"), pl.col("logprob"), *sums)),
    )
