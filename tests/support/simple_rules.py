"""The filter and pair rules as the method says them, prompt by prompt: what `ospo_core.selection.rules` must decide.

Equal values are decided by variant, then base side before negative side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ospo_core.config.sections import SelectionConfig
from ospo_core.errors import StageError
from ospo_core.schema import Side
from ospo_core.selection.rules import (
    NO_CHOSEN_CANDIDATE,
    NO_COMPLETE_VARIANT,
    NO_IMAGES,
    NO_PAIR_OF_ONE_VARIANT,
    NO_QUESTIONS,
    NO_REJECTED_CANDIDATE,
    NO_TEXT_NEGATIVE,
    NOT_FINITE,
    SCORE_NOT_LARGER,
)
from ospo_core.selection.scoring import is_yes


@dataclass(frozen=True)
class Candidate:
    """One scored image of a prompt.

    Attributes:
        variant: index of the perturbation whose noise the image was rendered with.
        side: which prompt rendered it.
        answers: `s_k` of the base prompt's questions on this image, each in [-1, 1].
        score: `S`, their mean.
        logprob_base: `l(y|x)`, mean log-probability of its tokens (nats a token) under the base prompt.
        logprob_negatives: `l(y|x~)` for each perturbed prompt, in the order of the perturbation variants.
        negative_answers: variant of a perturbed prompt to the `s_k` of that prompt's questions on this image.
    """

    variant: int
    side: Side
    answers: tuple[float, ...]
    score: float
    logprob_base: float
    logprob_negatives: tuple[float, ...]
    negative_answers: Mapping[int, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Selected:
    """The pair of a prompt.

    Attributes:
        chosen: `y_w`.
        rejected: `y_l`.
        negative_variant: variant of the perturbed prompt `x~` for the conditional loss.
        image_gap: `l(y_w|x) - l(y_l|x)`, signed, nats a token.
        text_gap: `l(y_w|x) - l(y_w|x~)`, signed, nats a token.
    """

    chosen: Candidate
    rejected: Candidate
    negative_variant: int
    image_gap: float
    text_gap: float


@dataclass(frozen=True)
class Dropped:
    """A prompt that gives no pair; `reason` is a key of `DROP_REASONS`."""

    reason: str


def select_pair(
    candidates: Sequence[Candidate],
    perturbation_variants: Sequence[int],
    config: SelectionConfig,
    draw: int = 0,
) -> Selected | Dropped:
    """Choose the pair of one prompt by the configured rule, or say why there is none.

    Args:
        candidates: all scored images of the prompt, in any order.
        perturbation_variants: variants of the prompt's perturbed prompts, in the order of `logprob_negatives`.
        config: rule and thresholds.
        draw: a number drawn for the prompt; picks the variant when filtering is off, and is otherwise unused.

    Raises:
        StageError: the candidates do not fit the perturbed prompts.
    """
    _check(candidates, perturbation_variants)
    ordered = sorted(candidates, key=_order)
    if not ordered:
        return Dropped(NO_IMAGES)
    if any(not _is_finite(candidate) for candidate in ordered):
        return Dropped(NOT_FINITE)
    if not config.filtering:
        return _select_unfiltered(ordered, perturbation_variants, draw)
    asked = [candidate for candidate in ordered if candidate.answers]
    if not asked:
        return Dropped(NO_QUESTIONS)
    select = {"v2": _select_v2, "v3": _select_v3, "best_of_n": _select_best_of_n}[config.rule]
    return select(asked, perturbation_variants, config)


def may_be_chosen(candidate: Candidate, config: SelectionConfig) -> bool:
    """Return whether an image is good enough to be chosen (docs/method.md, section 3.2); best_of_n: as for v2."""
    if config.rule == "v3":
        return candidate.score >= config.v3_score_threshold and any(map(is_yes, candidate.answers))
    return bool(candidate.answers) and all(s > config.v2_answer_threshold for s in candidate.answers)


def may_be_rejected(candidate: Candidate, config: SelectionConfig) -> bool:
    """Return whether an image is bad enough to be rejected (docs/method.md, section 3.2); best_of_n: as for v2."""
    if config.rule == "v3":
        return not all(map(is_yes, candidate.answers))
    return any(s < -config.v2_answer_threshold for s in candidate.answers)


def _good_and_bad(candidates: list[Candidate], config: SelectionConfig) -> tuple[list[Candidate], list[Candidate]]:
    """Return the images that may be chosen and those that may be rejected, each of the side that `sides` allows."""
    good = [c for c in candidates if may_be_chosen(c, config)]
    bad = [c for c in candidates if may_be_rejected(c, config)]
    if config.sides == "published":
        return [c for c in good if c.side is Side.BASE], [c for c in bad if c.side is Side.NEGATIVE]
    return good, bad


def _select_v2(candidates: list[Candidate], variants: Sequence[int], config: SelectionConfig) -> Selected | Dropped:
    """Apply v2: the best image against the hardest bad one, and the hardest wrong prompt."""
    threshold = config.v2_answer_threshold
    good, bad = _good_and_bad(candidates, config)
    if not good:
        return Dropped(NO_CHOSEN_CANDIDATE)
    if not bad:
        return Dropped(NO_REJECTED_CANDIDATE)
    chosen = max(good, key=lambda c: c.score)
    if config.v2_rejected == "same_noise":
        bad = [c for c in bad if c.variant == chosen.variant]
        if not bad:
            return Dropped(NO_PAIR_OF_ONE_VARIANT)
    lower = [c for c in bad if chosen.score > c.score]
    if not lower:
        return Dropped(SCORE_NOT_LARGER)
    rejected = min(lower, key=lambda c: abs(chosen.logprob_base - c.logprob_base))
    wrong = [v for v in sorted(variants) if any(s < -threshold for s in chosen.negative_answers.get(v, ()))]
    if not wrong:
        return Dropped(NO_TEXT_NEGATIVE)
    negative = min(wrong, key=lambda v: abs(_text_gap(chosen, v, variants)))
    return _selected(chosen, rejected, negative, variants)


def _select_v3(candidates: list[Candidate], variants: Sequence[int], config: SelectionConfig) -> Selected | Dropped:
    """Apply v3: the best image whose own variant also has a rejected image, and that image."""
    good, bad = _good_and_bad(candidates, config)
    if not good:
        return Dropped(NO_CHOSEN_CANDIDATE)
    if not bad:
        return Dropped(NO_REJECTED_CANDIDATE)
    pairs = [(g, b) for g in good for b in bad if g.variant == b.variant and g.side != b.side]
    if not pairs:
        return Dropped(NO_PAIR_OF_ONE_VARIANT)
    ranked = [(g, b) for g, b in pairs if g.score > b.score]
    if not ranked:
        return Dropped(SCORE_NOT_LARGER)
    chosen, rejected = max(ranked, key=lambda pair: pair[0].score)
    return _selected(chosen, rejected, chosen.variant, variants)


def _select_best_of_n(
    candidates: list[Candidate], variants: Sequence[int], config: SelectionConfig
) -> Selected | Dropped:
    """Pair the best and the worst of the images of the prompt itself (SILMM's way); no thresholds, no hard negatives.

    Such a pair has no text negative of its own: the column names the chosen image's variant.
    """
    own = [candidate for candidate in candidates if candidate.side is Side.BASE]
    if len(own) < 2:
        return Dropped(NO_REJECTED_CANDIDATE)
    chosen, rejected = max(own, key=lambda c: c.score), min(own, key=lambda c: c.score)
    if chosen.score <= rejected.score:
        return Dropped(SCORE_NOT_LARGER)
    return _selected(chosen, rejected, chosen.variant, variants)


def _select_unfiltered(candidates: list[Candidate], variants: Sequence[int], draw: int) -> Selected | Dropped:
    """Pair the base image of the drawn variant with its negative image, whatever they show (ablation)."""
    sides = {(c.variant, c.side): c for c in candidates}
    complete = [v for v in sorted(variants) if (v, Side.BASE) in sides and (v, Side.NEGATIVE) in sides]
    if not complete:
        return Dropped(NO_COMPLETE_VARIANT)
    variant = complete[draw % len(complete)]
    return _selected(sides[variant, Side.BASE], sides[variant, Side.NEGATIVE], variant, variants)


def _selected(chosen: Candidate, rejected: Candidate, negative: int, variants: Sequence[int]) -> Selected:
    """Put the pair together with its two log-probability gaps."""
    return Selected(
        chosen=chosen,
        rejected=rejected,
        negative_variant=negative,
        image_gap=chosen.logprob_base - rejected.logprob_base,
        text_gap=_text_gap(chosen, negative, variants),
    )


def _text_gap(chosen: Candidate, variant: int, variants: Sequence[int]) -> float:
    """Return `l(y_w|x) - l(y_w|x~)` for the perturbed prompt of `variant`."""
    return chosen.logprob_base - chosen.logprob_negatives[list(variants).index(variant)]


def _order(candidate: Candidate) -> tuple[int, bool]:
    """Sort by variant, base side first: the order that decides between equals."""
    return candidate.variant, candidate.side is not Side.BASE


def _is_finite(candidate: Candidate) -> bool:
    """Tell whether every number of a candidate is finite."""
    numbers = (candidate.score, candidate.logprob_base, *candidate.logprob_negatives, *candidate.answers)
    asked = (s for answers in candidate.negative_answers.values() for s in answers)
    return all(map(math.isfinite, numbers)) and all(map(math.isfinite, asked))


def _check(candidates: Sequence[Candidate], variants: Sequence[int]) -> None:
    """Refuse candidates that cannot belong to this prompt.

    Raises:
        StageError: a variant without perturbed prompt, a wrong number of log-probabilities, or an image given twice.
    """
    seen: set[tuple[int, Side]] = set()
    for candidate in candidates:
        key = (candidate.variant, candidate.side)
        if candidate.variant not in variants or len(candidate.logprob_negatives) != len(variants) or key in seen:
            raise StageError(
                "scores do not fit the perturbed prompts of their item",
                field="scores",
                value=(candidate.variant, str(candidate.side), len(candidate.logprob_negatives), tuple(variants)),
                remedy="Run the scores stage again with --refresh scores",
            )
        seen.add(key)
