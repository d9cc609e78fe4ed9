"""Names that the tables share: categories of prompts, kinds of perturbation, sides of a pair, models compared."""

from __future__ import annotations

from enum import StrEnum


class Category(StrEnum):
    """The four categories of prompts (OSPO, section 3.1)."""

    ATTRIBUTE = "attribute"
    LAYOUT = "layout"
    NON_SPATIAL = "non_spatial"
    COMPLEX = "complex"


class SubCategory(StrEnum):
    """Sub-categories of prompts; the digit is the number of objects, or of kinds of object for numeracy."""

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


PARENT = "parent"
"""Value of column `model` of table `evaluation` for the checkpoint that the round started from."""
CHILD = "child"
"""Value of column `model` of table `evaluation` for the checkpoint that the round trained."""
ALL = "all"
"""Name of the group of all prompts, where figures are given by category."""


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
"""The kind of perturbation of variants 0, 1 and 2 of a prompt (docs/method.md, section 2)."""
