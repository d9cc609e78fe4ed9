"""The pair rules of OSPO on one page: versions v2 and v3 of the paper (arXiv 2506.02015) and two ablations.

A rule is one function: it filters, sorts and joins the images of all prompts at once and returns one row per pair. To
add a rule, write such a function, enter it in `RULES`, and add its name to `SelectionConfig.rule`. docs/method.md,
section 3.2, states the same rules in prose. Where the paper leaves a choice open:

- `selection.sides` says which prompt must have rendered an image. `published`, as in the code of both versions: the
  base prompt for a chosen image, a perturbed prompt for a rejected one. `any`: either, for both. An image of the wrong
  side is no candidate: a prompt whose only good images show perturbed prompts is dropped as `no_chosen_candidate`.
- `S(y_w) > S(y_l)` is a condition on the pair: an image that does not score lower is passed over, and the prompt is
  dropped only when no partner is left.
- Ties are broken by variant, then base side before negative side, so the order of the rows does not matter.
- The text negative of v3 is the perturbed prompt of the pair's variant; with published sides it rendered `y_l`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import polars as pl

from ospo_core.artifacts.ids import derive_seed
from ospo_core.config.sections import SelectionConfig
from ospo_core.errors import StageError
from ospo_core.schema import Side

NO_IMAGES = "no_images"
NO_QUESTIONS = "no_questions"
NOT_FINITE = "not_finite"
NO_CHOSEN_CANDIDATE = "no_chosen_candidate"
NO_REJECTED_CANDIDATE = "no_rejected_candidate"
NO_PAIR_OF_ONE_VARIANT = "no_pair_of_one_variant"
SCORE_NOT_LARGER = "score_not_larger"
NO_TEXT_NEGATIVE = "no_text_negative"
NO_COMPLETE_VARIANT = "no_complete_variant"

DROP_REASONS: dict[str, str] = {
    NO_IMAGES: "no image of the prompt was rendered and scored",
    NOT_FINITE: "a score or a log-probability of one of its images is infinite or not a number",
    NO_QUESTIONS: "no question was asked about its images",
    NO_CHOSEN_CANDIDATE: "no image of the side that may be chosen is good enough",
    NO_REJECTED_CANDIDATE: "no image of the side that may be rejected is bad enough; best_of_n: fewer than two images",
    NO_PAIR_OF_ONE_VARIANT: "v3, same_noise: no rejected candidate is of the variant of a chosen one",
    SCORE_NOT_LARGER: "no rejected candidate scores lower than the chosen image",
    NO_TEXT_NEGATIVE: "v2: no perturbed prompt is clearly wrong for the chosen image",
    NO_COMPLETE_VARIANT: "unfiltered: no variant has both of its images",
}
"""Every reason for which a prompt gives no pair, with its meaning; a prompt counts under the first that applies."""


class Prompts:
    """The prompts that a rule works on, and why some of them give no pair.

    Attributes:
        images: one row per image that was rendered and scored, sorted by `item` (a number), `variant` and `side`; with
            `score`, `logprob`, `lowest`, `highest` and `finite` as in `read_scores`, its `row` in `scores`, and its row
            in the images table, `image`.
        texts: the perturbed prompts, row i for item i: the lists `variant_text` and `row_text` (in the perturbations
            table), sorted by variant.
        scores: what `read_scores` returns.
        drops: reason to number of prompts.
    """

    def __init__(self, images: pl.DataFrame, texts: pl.DataFrame, scores: pl.DataFrame) -> None:
        self.images, self.texts, self.scores = images, texts, scores
        self.drops: Counter[str] = Counter()
        self._left = np.ones(texts.height, dtype=bool)

    def need(self, rows: pl.DataFrame, reason: str) -> pl.DataFrame:
        """Return `rows`; a prompt without a row among them is dropped for `reason`, unless it was dropped before."""
        found = np.zeros_like(self._left)
        found[rows["item"].to_numpy()] = True
        if lost := int((self._left & ~found).sum()):
            self.drops[reason] += lost
        self._left &= found
        return rows


Rule = Callable[[Prompts, SelectionConfig], pl.DataFrame]
"""Returns one row per pair: the columns of the chosen image, those of the rejected one with the suffix `_rejected`, and
those of the text negative with the suffix `_text`."""


def may_be_chosen(config: SelectionConfig) -> pl.Expr:
    """Return whether an image is good enough to be chosen, whichever prompt rendered it; best_of_n: as for v2."""
    if config.rule == "v3":
        good = (pl.col("score") >= config.v3_score_threshold) & (pl.col("highest") > 0)
    else:
        good = pl.col("lowest") > config.v2_answer_threshold
    return (good & pl.col("finite")).fill_null(False)


def may_be_rejected(config: SelectionConfig) -> pl.Expr:
    """Return whether an image is bad enough to be rejected, whichever prompt rendered it; best_of_n: as for v2."""
    bad = pl.col("lowest") <= 0 if config.rule == "v3" else pl.col("lowest") < -config.v2_answer_threshold
    return (bad & pl.col("finite")).fill_null(False)


def v2(prompts: Prompts, config: SelectionConfig) -> pl.DataFrame:
    """The good image with the largest score, the hardest bad image, and the hardest clearly wrong prompt."""
    good, bad = _good_and_bad(prompts, config)
    pairs = _pairs(_largest(good, "score"), bad)
    if config.v2_rejected == "same_noise":
        pairs = prompts.need(pairs.filter(_SAME_VARIANT), NO_PAIR_OF_ONE_VARIANT)
    pairs = prompts.need(pairs.filter(_SCORES_LOWER), SCORE_NOT_LARGER)
    pairs = _smallest(pairs, (pl.col("logprob") - pl.col("logprob_rejected")).abs())
    wrong = _contradicted(prompts, _with_texts(prompts, pairs), config.v2_answer_threshold)
    wrong = prompts.need(wrong, NO_TEXT_NEGATIVE)
    return _smallest(wrong, (pl.col("logprob") - pl.col("logprob_text")).abs())


def v3(prompts: Prompts, config: SelectionConfig) -> pl.DataFrame:
    """The good image with the largest score whose own variant also has a bad image, and that image."""
    good, bad = _good_and_bad(prompts, config)
    pairs = _pairs(good, bad).filter(_SAME_VARIANT, pl.col("side") != pl.col("side_rejected"))
    pairs = prompts.need(pairs, NO_PAIR_OF_ONE_VARIANT)
    pairs = prompts.need(pairs.filter(_SCORES_LOWER), SCORE_NOT_LARGER)
    return _with_own_text(prompts, _largest(pairs, "score"))


def best_of_n(prompts: Prompts, config: SelectionConfig) -> pl.DataFrame:
    """The best and the worst image of the base prompt, as in SILMM: no thresholds, no hard negatives.

    Such a pair has no text negative of its own; the column names that of the chosen image's variant.
    """
    del config  # there is nothing to set
    own = _asked(prompts).filter(pl.col("side") == Side.BASE.value)
    own = prompts.need(own.filter(pl.len().over("item") > 1), NO_REJECTED_CANDIDATE)
    pairs = _pairs(_largest(own, "score"), _smallest(own, pl.col("score")))
    pairs = prompts.need(pairs.filter(_SCORES_LOWER), SCORE_NOT_LARGER)
    return _with_own_text(prompts, pairs)


def unfiltered(prompts: Prompts, config: SelectionConfig) -> pl.DataFrame:
    """The base image and the negative image of one variant, drawn at random per prompt, whatever they show."""
    del config  # there is nothing to set
    base, negative = (prompts.images.filter(pl.col("side") == side.value) for side in (Side.BASE, Side.NEGATIVE))
    pairs = prompts.need(_pairs(base, negative).filter(_SAME_VARIANT), NO_COMPLETE_VARIANT)
    draws = [derive_seed("unfiltered pair", item_id) for item_id in prompts.scores["item_id"][pairs["row"]]]
    drawn = pl.lit(pl.Series(draws, dtype=pl.UInt64)) % pl.len().over("item")
    return _with_own_text(prompts, pairs.filter(pl.int_range(pl.len()).over("item") == drawn))


RULES: dict[str, Rule] = {rule.__name__: rule for rule in (v2, v3, best_of_n, unfiltered)}
"""The rules by name: those of `SelectionConfig.rule`, and `unfiltered`, which stands for `filtering: false`."""

_SAME_VARIANT = pl.col("variant") == pl.col("variant_rejected")
_SCORES_LOWER = pl.col("score_rejected") < pl.col("score")


def _asked(prompts: Prompts) -> pl.DataFrame:
    """Return the images about which questions were asked."""
    return prompts.need(prompts.images.filter(pl.col("lowest").is_not_null()), NO_QUESTIONS)


def _good_and_bad(prompts: Prompts, config: SelectionConfig) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the images that may be chosen and those that may be rejected, each of the side that `sides` allows."""
    asked, good, bad = _asked(prompts), may_be_chosen(config), may_be_rejected(config)
    if config.sides == "published":
        good &= pl.col("side") == Side.BASE.value
        bad &= pl.col("side") == Side.NEGATIVE.value
    chosen = prompts.need(asked.filter(good), NO_CHOSEN_CANDIDATE)
    return chosen, prompts.need(asked.filter(bad), NO_REJECTED_CANDIDATE)


def _pairs(chosen: pl.DataFrame, rejected: pl.DataFrame) -> pl.DataFrame:
    """Return every chosen image with every rejected image of its prompt."""
    return chosen.join(rejected, on="item", suffix="_rejected", maintain_order="left_right")


def _with_texts(prompts: Prompts, pairs: pl.DataFrame) -> pl.DataFrame:
    """Return every pair with every perturbed prompt of its item; `logprob_text` is `l(y_w|x~)`.

    Raises:
        StageError: a chosen image has no such log-probabilities (`could_be_chosen` says which images get them).
    """
    negatives = prompts.scores["logprob_negatives"][pairs["row"]].alias("logprob_text")
    if (negatives.list.len() == 0).any():
        raise StageError(
            "a chosen image has no log-probabilities under the perturbed prompts",
            field="scores",
            value=prompts.scores["item_id"][pairs["row"]].filter(negatives.list.len() == 0)[0],
            remedy="Run the scores stage again with --refresh scores",
        )
    every = pairs.with_columns(negatives, *prompts.texts[pairs["item"]])
    return every.explode("logprob_text", "row_text", "variant_text")


def _with_own_text(prompts: Prompts, pairs: pl.DataFrame) -> pl.DataFrame:
    """Return every pair with the perturbed prompt of the chosen image's variant."""
    return _with_texts(prompts, pairs).filter(pl.col("variant_text") == pl.col("variant"))


def _contradicted(prompts: Prompts, texts: pl.DataFrame, threshold: float) -> pl.DataFrame:
    """Return one row per question of a perturbed prompt that the chosen image clearly answers with no."""
    answers = texts.with_columns(prompts.scores["about"][texts["row"]]).explode("about")
    answer = pl.col("about").struct
    return answers.filter(answer.field("variant") == pl.col("variant_text"), answer.field("s") < -threshold)


def _largest(rows: pl.DataFrame, by: str) -> pl.DataFrame:
    """Return the row with the largest value per item; of equal ones the first."""
    return _smallest(rows, -pl.col(by))


def _smallest(rows: pl.DataFrame, by: pl.Expr) -> pl.DataFrame:
    """Return the row with the smallest value per item; of equal ones the first."""
    return rows.sort(by, maintain_order=True).unique("item", keep="first", maintain_order=True)
