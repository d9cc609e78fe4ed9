"""Scores of images, and the filter and pair rules; free of torch (docs/method.md, section 3)."""

from ospo_core.selection.pairs import PairTables, build_pairs
from ospo_core.selection.rules import DROP_REASONS, RULES, may_be_chosen, may_be_rejected
from ospo_core.selection.scoring import answer_score, image_score, is_yes, read_scores

__all__ = [
    "DROP_REASONS",
    "RULES",
    "PairTables",
    "answer_score",
    "build_pairs",
    "image_score",
    "is_yes",
    "may_be_chosen",
    "may_be_rejected",
    "read_scores",
]
