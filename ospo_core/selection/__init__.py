"""Scoring arithmetic and the filter and pair rules, all in one place and free of torch (method, section 3)."""

from ospo_core.selection.columns import ImageScores, read_scores
from ospo_core.selection.pairs import PairTables, build_pairs
from ospo_core.selection.rules import (
    DROP_REASONS,
    NO_CHOSEN_CANDIDATE,
    NO_COMPLETE_VARIANT,
    NO_IMAGES,
    NO_PAIR_OF_ONE_VARIANT,
    NO_QUESTIONS,
    NO_REJECTED_CANDIDATE,
    NO_TEXT_NEGATIVE,
    NOT_FINITE,
    SCORE_NOT_LARGER,
    may_be_chosen,
    may_be_rejected,
)
from ospo_core.selection.scoring import answer_score, image_score

__all__ = [
    "DROP_REASONS",
    "NOT_FINITE",
    "NO_CHOSEN_CANDIDATE",
    "NO_COMPLETE_VARIANT",
    "NO_IMAGES",
    "NO_PAIR_OF_ONE_VARIANT",
    "NO_QUESTIONS",
    "NO_REJECTED_CANDIDATE",
    "NO_TEXT_NEGATIVE",
    "SCORE_NOT_LARGER",
    "ImageScores",
    "PairTables",
    "answer_score",
    "build_pairs",
    "image_score",
    "may_be_chosen",
    "may_be_rejected",
    "read_scores",
]
