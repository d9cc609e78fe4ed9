"""Names used by every table: categories of prompts, kinds of perturbation, sides of a pair, stages of a round."""

from __future__ import annotations

from enum import StrEnum


class StageName(StrEnum):
    """The cached stages of a round, in the order in which they run."""

    PROMPTS = "prompts"
    PERTURBATIONS = "perturbations"
    QUESTIONS = "questions"
    IMAGES = "images"
    SCORES = "scores"
    PAIRS = "pairs"
    TRAINING = "training"
    EVALUATION = "evaluation"


class Category(StrEnum):
    """The four categories of prompts (OSPO, section 3.1)."""

    ATTRIBUTE = "attribute"
    LAYOUT = "layout"
    NON_SPATIAL = "non_spatial"
    COMPLEX = "complex"


class SubCategory(StrEnum):
    """Sub-categories of prompts; the digit is the number of objects (attribute) or of kinds of object (numeracy)."""

    COLOR_1 = "color_1"
    SHAPE_1 = "shape_1"
    TEXTURE_1 = "texture_1"
    COLOR_2 = "color_2"
    SHAPE_2 = "shape_2"
    TEXTURE_2 = "texture_2"
    SPATIAL_2D = "spatial_2d"
    SPATIAL_3D = "spatial_3d"
    NUMERACY_1 = "numeracy_1"
    NUMERACY_2 = "numeracy_2"
    NON_SPATIAL = "non_spatial"
    COMPLEX = "complex"


class PerturbationKind(StrEnum):
    """How a prompt is changed into its hard negative."""

    REPLACE = "replace"
    SWAP = "swap"
    DROP = "drop"


class Side(StrEnum):
    """Which prompt an image was rendered from."""

    BASE = "base"
    NEGATIVE = "negative"


_ATTRIBUTE = {
    SubCategory.COLOR_1,
    SubCategory.SHAPE_1,
    SubCategory.TEXTURE_1,
    SubCategory.COLOR_2,
    SubCategory.SHAPE_2,
    SubCategory.TEXTURE_2,
}
_LAYOUT = {SubCategory.SPATIAL_2D, SubCategory.SPATIAL_3D, SubCategory.NUMERACY_1, SubCategory.NUMERACY_2}


def category_of(sub_category: SubCategory) -> Category:
    """Return the category that a sub-category belongs to."""
    if sub_category in _ATTRIBUTE:
        return Category.ATTRIBUTE
    if sub_category in _LAYOUT:
        return Category.LAYOUT
    return Category(sub_category.value)


_REPLACE_ONLY = (PerturbationKind.REPLACE,) * 3
_ALL_KINDS = (PerturbationKind.REPLACE, PerturbationKind.SWAP, PerturbationKind.DROP)

PERTURBATIONS: dict[SubCategory, tuple[PerturbationKind, ...]] = {
    SubCategory.COLOR_1: _REPLACE_ONLY,
    SubCategory.SHAPE_1: _REPLACE_ONLY,
    SubCategory.TEXTURE_1: _REPLACE_ONLY,
    SubCategory.COLOR_2: _ALL_KINDS,
    SubCategory.SHAPE_2: _ALL_KINDS,
    SubCategory.TEXTURE_2: _ALL_KINDS,
    SubCategory.SPATIAL_2D: _ALL_KINDS,
    SubCategory.SPATIAL_3D: _ALL_KINDS,
    SubCategory.NUMERACY_1: _REPLACE_ONLY,
    SubCategory.NUMERACY_2: _ALL_KINDS,
    SubCategory.NON_SPATIAL: (PerturbationKind.REPLACE, PerturbationKind.DROP, PerturbationKind.REPLACE),
    SubCategory.COMPLEX: _ALL_KINDS,
}
"""The kinds of perturbation made for a prompt, by variant 0, 1, 2 (method, section 2)."""
