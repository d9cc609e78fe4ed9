"""THE filter and pair rules of OSPO, versions v2 and v3 of the paper (arXiv 2506.02015; method, section 3).

The only definition of these rules in the project, for many prompts at once. All images of a prompt, those rendered from
the prompt and those rendered from its perturbations, are candidates for both places of the pair. Where the paper leaves
a choice open:

- `S(y_w) > S(y_l)` is a condition on the pair, so an image that does not score lower is no partner, and the next one
  in the rule's order is taken. The prompt is dropped only when no partner is left.
- Equal values are decided by variant, then base side before negative side: the order of the rows changes nothing.
- v3's text negative is the perturbed prompt of the pair's variant, which rendered `y_l` or, where the image of the
  perturbed prompt turned out to be the better one, `y_w`.

`tests/support/simple_rules.py` says the same prompt by prompt, and a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ospo_core.config.sections import SelectionConfig
from ospo_core.selection.columns import NONE, Bools, Floats, ImageScores, Ints

_Number = TypeVar("_Number", np.float64, np.int64)

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
    NO_QUESTIONS: "no question was asked about its images",
    NOT_FINITE: "a score or a log-probability is infinite or not a number",
    NO_CHOSEN_CANDIDATE: "no image is good enough to be chosen",
    NO_REJECTED_CANDIDATE: "no image is bad enough to be rejected",
    NO_PAIR_OF_ONE_VARIANT: "same noise asked for (v3): no variant has both a chosen and a rejected candidate",
    SCORE_NOT_LARGER: "no rejected candidate scores lower than the chosen image",
    NO_TEXT_NEGATIVE: "v2: no perturbed prompt is clearly wrong for the chosen image",
    NO_COMPLETE_VARIANT: "unfiltered: no variant has both its images",
}
"""Every reason for which a prompt gives no pair, with what it means."""


@dataclass(frozen=True)
class Candidates:
    """The scored images of N prompts, each prompt's in one line of S places (see `selection.columns` for letters).

    Args:
        scores: all images.
        item: number of the prompt that each image belongs to, `[R]`.
        rows: the images of each prompt by variant, base side first, `[N, S]`; NONE where a prompt has fewer.
        variants: variants of its perturbed prompts, rising, `[N, V]`; what is beyond `perturbed` means nothing.
        perturbed: how many perturbed prompts it has, `[N]`.
        draws: a number drawn for each prompt; picks the variant when filtering is off, and is otherwise unused, `[N]`.
    """

    scores: ImageScores
    item: Ints
    rows: Ints
    variants: Ints
    perturbed: Ints
    draws: NDArray[np.uint64]

    @cached_property
    def here(self) -> Bools:
        """Whether there is an image, `[N, S]`."""
        return self.rows != NONE

    @cached_property
    def score(self) -> Floats:
        """`S` of each image, `[N, S]`."""
        return np.append(self.scores.score, np.nan)[self.rows]

    @cached_property
    def logprob(self) -> Floats:
        """`l(y|x)` of each image, `[N, S]`."""
        return np.append(self.scores.logprob, np.nan)[self.rows]

    @cached_property
    def variant(self) -> Ints:
        """Variant of each image, `[N, S]`."""
        return np.append(self.scores.variant, NONE)[self.rows]

    @cached_property
    def base(self) -> Bools:
        """Whether the base prompt rendered the image, `[N, S]`."""
        return self.where(~self.scores.negative)

    def where(self, flags: Bools) -> Bools:
        """Return flags of images, `[R]`, in the places of the images, `[N, S]`."""
        return np.append(flags, False)[self.rows]


@dataclass
class Choice:
    """What the rule chose for each prompt; places are in the lines of `Candidates`. Arrays `[N]`.

    Attributes:
        reason: why the prompt gives no pair, a key of `DROP_REASONS`; empty where it gives one. Where it does not, the
            other arrays mean nothing.
        chosen: place of `y_w`.
        rejected: place of `y_l`.
        negative: place of the perturbed prompt `x~` for the conditional loss.
        image_gap: `l(y_w|x) - l(y_l|x)`, signed, nats a token.
        text_gap: `l(y_w|x) - l(y_w|x~)`, signed, nats a token.
    """

    reason: NDArray[np.object_]
    chosen: Ints
    rejected: Ints
    negative: Ints
    image_gap: Floats
    text_gap: Floats


class _Reasons:
    """Why prompts are dropped: the first reason given counts."""

    def __init__(self, items: int) -> None:
        self.reason: NDArray[np.object_] = np.full(items, "", dtype=object)

    def drop(self, where: Bools, reason: str) -> None:
        """Drop some prompts, unless they are dropped already."""
        self.reason[where & (self.reason == "")] = reason

    def need(self, any_of: Bools, reason: str) -> None:
        """Drop the prompts that have no place of the wanted kind; `any_of` is `[N, S]` or `[N, V]`."""
        self.drop(np.asarray(~any_of.any(axis=1)), reason)


Places = tuple[Ints, Ints, Ints]
"""Of the chosen image, the rejected image and the perturbed prompt."""


def choose(candidates: Candidates, config: SelectionConfig) -> Choice:
    """Choose the pair of every prompt by the configured rule, or say why there is none."""
    reasons = _Reasons(len(candidates.rows))
    reasons.need(candidates.here, NO_IMAGES)
    infinite = np.asarray(candidates.where(~_finite(candidates.scores)).any(axis=1))
    reasons.drop(infinite, NOT_FINITE)
    candidates = replace(candidates, rows=np.where(infinite[:, None], NONE, candidates.rows))
    if config.filtering:
        asked = candidates.where(candidates.scores.answers.lengths > 0)
        reasons.need(asked, NO_QUESTIONS)
        select = {"v2": _select_v2, "v3": _select_v3, "best_of_n": _select_best_of_n}[config.rule]
        chosen, rejected, negative = select(candidates, asked, config, reasons)
    else:
        chosen, rejected, negative = _select_unfiltered(candidates, reasons)
    return Choice(
        reason=reasons.reason,
        chosen=chosen,
        rejected=rejected,
        negative=negative,
        image_gap=_at(candidates.logprob, chosen) - _at(candidates.logprob, rejected),
        text_gap=_at(_text_gaps(candidates, chosen), negative),
    )


def may_be_chosen(scores: ImageScores, config: SelectionConfig) -> Bools:
    """Whether an image is good enough to be chosen (method, section 3), `[R]`; v2's thresholds unless it is v3."""
    answers = scores.answers
    if config.rule == "v3":
        return (scores.score >= config.v3_score_threshold) & (answers.count(answers.values > 0) > 0)
    clear = answers.count(answers.values > config.v2_answer_threshold)
    return (clear == answers.lengths) & (answers.lengths > 0)


def may_be_rejected(scores: ImageScores, config: SelectionConfig) -> Bools:
    """Whether an image is bad enough to be rejected (method, section 3), `[R]`; v2's thresholds unless it is v3."""
    answers = scores.answers
    if config.rule == "v3":
        return answers.count(answers.values > 0) < answers.lengths
    return answers.count(answers.values < -config.v2_answer_threshold) > 0


def _select_v2(candidates: Candidates, asked: Bools, config: SelectionConfig, reasons: _Reasons) -> Places:
    """Apply v2: the best image against the hardest bad one, and the hardest wrong prompt."""
    good = asked & candidates.where(may_be_chosen(candidates.scores, config))
    bad = asked & candidates.where(may_be_rejected(candidates.scores, config))
    reasons.need(good, NO_CHOSEN_CANDIDATE)
    reasons.need(bad, NO_REJECTED_CANDIDATE)
    chosen = _largest(candidates.score, good)
    if config.v2_rejected == "same_noise":
        bad = bad & (candidates.variant == _at(candidates.variant, chosen)[:, None])
        reasons.need(bad, NO_PAIR_OF_ONE_VARIANT)
    lower = bad & (candidates.score < _at(candidates.score, chosen)[:, None])
    reasons.need(lower, SCORE_NOT_LARGER)
    rejected = _smallest(np.abs(_at(candidates.logprob, chosen)[:, None] - candidates.logprob), lower)
    wrong = _clearly_wrong(candidates, chosen, config.v2_answer_threshold)
    reasons.need(wrong, NO_TEXT_NEGATIVE)
    return chosen, rejected, _smallest(np.abs(_text_gaps(candidates, chosen)), wrong)


def _select_v3(candidates: Candidates, asked: Bools, config: SelectionConfig, reasons: _Reasons) -> Places:
    """Apply v3: the best image whose own variant also has a rejected image, and that image."""
    good = asked & candidates.where(may_be_chosen(candidates.scores, config))
    bad = asked & candidates.where(may_be_rejected(candidates.scores, config))
    reasons.need(good, NO_CHOSEN_CANDIDATE)
    reasons.need(bad, NO_REJECTED_CANDIDATE)
    partner, has_partner = _partners(candidates)
    paired = good & has_partner & np.take_along_axis(bad, partner, axis=1)
    reasons.need(paired, NO_PAIR_OF_ONE_VARIANT)
    ranked = paired & (candidates.score > np.take_along_axis(candidates.score, partner, axis=1))
    reasons.need(ranked, SCORE_NOT_LARGER)
    chosen = _largest(candidates.score, ranked)
    return chosen, _at(partner, chosen), _own_prompt(candidates, chosen)


def _select_best_of_n(candidates: Candidates, asked: Bools, config: SelectionConfig, reasons: _Reasons) -> Places:
    """Pair the best and the worst of the images of the prompt itself (SILMM's way); no thresholds, no hard negatives.

    Such a pair has no text negative of its own: the column names the chosen image's variant.
    """
    own = asked & candidates.base
    reasons.drop(own.sum(axis=1) < 2, NO_REJECTED_CANDIDATE)
    chosen, rejected = _largest(candidates.score, own), _smallest(candidates.score, own)
    reasons.drop(_at(candidates.score, chosen) <= _at(candidates.score, rejected), SCORE_NOT_LARGER)
    return chosen, rejected, _own_prompt(candidates, chosen)


def _select_unfiltered(candidates: Candidates, reasons: _Reasons) -> Places:
    """Pair the base image of the drawn variant with its negative image, whatever they show (ablation)."""
    partner, has_partner = _partners(candidates)
    complete = candidates.base & has_partner
    count = complete.sum(axis=1)
    reasons.drop(count == 0, NO_COMPLETE_VARIANT)
    drawn = candidates.draws % np.maximum(count, 1).astype(np.uint64)
    chosen = (complete & (np.cumsum(complete, axis=1) == drawn.astype(np.int64)[:, None] + 1)).argmax(axis=1)
    return chosen, _at(partner, chosen), _own_prompt(candidates, chosen)


def _partners(candidates: Candidates) -> tuple[Ints, Bools]:
    """Return the place of the other image of an image's variant, and whether there is one, both `[N, S]`."""
    places = np.broadcast_to(np.arange(candidates.rows.shape[1]), candidates.rows.shape).copy()
    with_next = (candidates.variant[:, :-1] == candidates.variant[:, 1:]) & candidates.here[:, 1:]
    has_partner = np.zeros(candidates.rows.shape, dtype=np.bool_)
    has_partner[:, :-1] |= with_next
    has_partner[:, 1:] |= with_next
    places[:, :-1] += with_next
    places[:, 1:] -= with_next
    return places, has_partner


def _own_prompt(candidates: Candidates, chosen: Ints) -> Ints:
    """Return the place of the perturbed prompt of the chosen image's variant, `[N]`."""
    return (candidates.variants == _at(candidates.variant, chosen)[:, None]).argmax(axis=1)


def _text_gaps(candidates: Candidates, chosen: Ints) -> Floats:
    """Return `l(y_w|x) - l(y_w|x~)` for every perturbed prompt, `[N, V]`."""
    negatives = candidates.scores.logprob_negatives.first(_at(candidates.rows, chosen), candidates.variants.shape[1])
    return _at(candidates.logprob, chosen)[:, None] - negatives


def _clearly_wrong(candidates: Candidates, chosen: Ints, threshold: float) -> Bools:
    """Whether a question of a perturbed prompt is clearly answered with no on the chosen image, `[N, V]`."""
    about, rows = candidates.scores.about, _at(candidates.rows, chosen)
    item = np.repeat(candidates.item, about.lengths)
    wrong = np.zeros(candidates.variants.shape, dtype=np.bool_)
    for place in range(candidates.variants.shape[1]):
        of_prompt = candidates.scores.about_variant == candidates.variants[item, place]
        clear = about.count((about.values < -threshold) & of_prompt) > 0
        wrong[:, place] = np.append(clear, False)[rows] & (place < candidates.perturbed)
    return wrong


def _finite(scores: ImageScores) -> Bools:
    """Whether every number of an image is finite, `[R]`."""
    finite = np.isfinite(scores.score) & np.isfinite(scores.logprob)
    for lists in (scores.answers, scores.logprob_negatives, scores.about):
        finite &= lists.count(~np.isfinite(lists.values)) == 0
    return finite


def _at(values: NDArray[_Number], places: Ints) -> NDArray[_Number]:
    """Return the value at one place of each line, `[N]`."""
    return np.asarray(values[np.arange(len(values)), places])


def _largest(values: Floats, allowed: Bools) -> Ints:
    """Return the first place of the largest allowed value of each line, `[N]`."""
    return np.where(allowed, values, -np.inf).argmax(axis=1)


def _smallest(values: Floats, allowed: Bools) -> Ints:
    """Return the first place of the smallest allowed value of each line, `[N]`."""
    return np.where(allowed, values, np.inf).argmin(axis=1)
