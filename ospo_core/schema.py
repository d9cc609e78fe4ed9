"""The data contract: stages, categories, and one pyarrow schema per table, all under one schema version.

An `item_id` means the same prompt in every table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Self

import pyarrow as pa

from ospo_core.errors import StageError

SCHEMA_VERSION = 1


class StageName(StrEnum):
    """The stages of a round, in the order in which they run; `unit` is what the rows of their tables are."""

    PROMPTS = "prompts", "prompts"
    PERTURBATIONS = "perturbations", "hard negatives"
    QUESTIONS = "questions", "question lists"
    IMAGES = "images", "pictures"
    SCORES = "scores", "scored pictures"
    PAIRS = "pairs", "preference pairs"
    TRAINING = "training", "measurements"
    EVALUATION = "evaluation", "judged pictures"

    unit: str

    def __new__(cls, value: str, unit: str = "") -> Self:
        """Return a member whose value is its name only; `StageName('pairs')` finds it without the unit."""
        member = str.__new__(cls, value)
        member._value_, member.unit = value, unit
        return member


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


GATE, HELD_OUT = "gate", "held_out"
"""Names among the extra facts of an evaluation that a benchmark decides: the benchmark, and the held-out figures."""

PARENT = "parent"
"""Value of column `model` of table `evaluation` for the checkpoint that the round started from."""
CHILD = "child"
"""Value of column `model` of table `evaluation` for the checkpoint that the round trained."""
ALL = "all"
"""Name of the group of all prompts, where figures are given by category."""


def category_of(sub_category: SubCategory) -> Category:
    """Return the category that a sub-category belongs to."""
    match sub_category.value.split("_")[0]:
        case "color" | "shape" | "texture":
            return Category.ATTRIBUTE
        case "spatial" | "numeracy":
            return Category.LAYOUT
        case _:
            return Category(sub_category.value)


_REPLACE, _SWAP, _DROP = PerturbationKind
_ONE_OBJECT = (SubCategory.COLOR_1, SubCategory.SHAPE_1, SubCategory.TEXTURE_1, SubCategory.NUMERACY_1)

PERTURBATIONS: dict[SubCategory, tuple[PerturbationKind, ...]] = {
    **dict.fromkeys(SubCategory, (_REPLACE, _SWAP, _DROP)),
    **dict.fromkeys(_ONE_OBJECT, (_REPLACE, _REPLACE, _REPLACE)),
    SubCategory.NON_SPATIAL: (_REPLACE, _DROP, _REPLACE),
}
"""The kind of perturbation of variants 0, 1 and 2 of a prompt (docs/method.md, section 2)."""

_STRINGS = pa.list_(pa.string())
_TOKENS = pa.list_(pa.uint16())
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_QUESTION_SCORES = pa.list_(pa.struct([("question", pa.string()), ("p_yes", pa.float64()), ("p_no", pa.float64())]))
_NEGATIVE_SCORES = pa.list_(
    pa.struct([("variant", pa.int32()), ("question", pa.string()), ("p_yes", pa.float64()), ("p_no", pa.float64())])
)

TABLES: dict[str, pa.Schema] = {
    "prompts": pa.schema(
        [
            ("item_id", pa.string()),
            ("category", pa.string()),
            ("sub_category", pa.string()),
            ("prompt", pa.string()),
            ("concepts", _STRINGS),
            ("relations", pa.list_(_STRINGS)),
        ]
    ),
    "perturbations": pa.schema(
        [
            ("item_id", pa.string()),
            ("variant", pa.int32()),
            ("category", pa.string()),
            ("sub_category", pa.string()),
            ("kind", pa.string()),
            ("prompt", pa.string()),
            ("negative_prompt", pa.string()),
            ("dense_prompt", pa.string()),
            ("dense_negative_prompt", pa.string()),
            ("seed", pa.uint64()),
        ]
    ),
    "questions": pa.schema(
        [("item_id", pa.string()), ("of", pa.string()), ("prompt", pa.string()), ("questions", _STRINGS)]
    ),
    "images": pa.schema(
        [
            ("item_id", pa.string()),
            ("variant", pa.int32()),
            ("side", pa.string()),
            ("dense_prompt", pa.string()),
            ("seed", pa.uint64()),
            ("tokens", _TOKENS),
            ("image", _IMAGE),
            ("mean_logprob", pa.float64()),
        ]
    ),
    "scores": pa.schema(
        [
            ("item_id", pa.string()),
            ("variant", pa.int32()),
            ("side", pa.string()),
            ("answers", _QUESTION_SCORES),
            ("negative_answers", _NEGATIVE_SCORES),
            ("score", pa.float64()),
            ("logprob_base", pa.float64()),
            ("logprob_negatives", pa.list_(pa.float64())),
        ]
    ),
    "pairs": pa.schema(
        [
            ("item_id", pa.string()),
            ("category", pa.string()),
            ("sub_category", pa.string()),
            ("prompt", pa.string()),
            ("negative_prompt", pa.string()),
            ("negative_kind", pa.string()),
            ("chosen_variant", pa.int32()),
            ("chosen_side", pa.string()),
            ("rejected_variant", pa.int32()),
            ("rejected_side", pa.string()),
            ("chosen_tokens", _TOKENS),
            ("rejected_tokens", _TOKENS),
            ("chosen_image", _IMAGE),
            ("rejected_image", _IMAGE),
            ("chosen_answers", _QUESTION_SCORES),
            ("rejected_answers", _QUESTION_SCORES),
            ("chosen_score", pa.float64()),
            ("rejected_score", pa.float64()),
            ("image_logprob_gap", pa.float64()),
            ("text_logprob_gap", pa.float64()),
            ("rule", pa.string()),
            ("chosen_mask", pa.list_(pa.float32())),
            ("rejected_mask", pa.list_(pa.float32())),
        ]
    ),
    "metrics": pa.schema([("step", pa.int64()), ("name", pa.string()), ("value", pa.float64())]),
    "evaluation": pa.schema(
        [
            ("item_id", pa.string()),
            ("model", pa.string()),
            ("category", pa.string()),
            ("sub_category", pa.string()),
            ("prompt", pa.string()),
            ("sample", pa.int32()),
            ("seed", pa.uint64()),
            ("guidance", pa.float64()),
            ("tokens", _TOKENS),
            ("image", _IMAGE),
            ("answers", _QUESTION_SCORES),
            ("vqa_score", pa.float64()),
            ("vqa_correct", pa.bool_()),
            ("oracle_correct", pa.bool_()),
        ]
    ),
    "benchmark_pictures": pa.schema(
        [
            ("item_id", pa.string()),
            ("category", pa.string()),
            ("prompt", pa.string()),
            ("sample", pa.int32()),
            ("seed", pa.uint64()),
            ("guidance", pa.float64()),
            ("tokens", _TOKENS),
            ("image", _IMAGE),
        ]
    ),
    "benchmark": pa.schema(
        [
            ("item_id", pa.string()),
            ("category", pa.string()),
            ("prompt", pa.string()),
            ("sample", pa.int32()),
            ("score", pa.float64()),
            ("parts", pa.list_(pa.struct([("name", pa.string()), ("value", pa.float64())]))),
            ("reason", pa.string()),
        ]
    ),
    "labels": pa.schema(
        [
            ("label_id", pa.string()),
            ("evaluation", pa.string()),
            ("session", pa.int64()),
            ("number", pa.int32()),
            ("kind", pa.string()),
            ("item_id", pa.string()),
            ("sample", pa.int32()),
            ("guidance", pa.float64()),
            ("model", pa.string()),
            ("question", pa.string()),
            ("left", pa.string()),
            ("answer", pa.string()),
            ("person", pa.string()),
            ("at", pa.string()),
        ]
    ),
}
"""Table name to schema. Tokens are uint16 codes in row-major order; `image` is a picture (PNG) and its name."""


def table_from_rows(name: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Build the pyarrow table `name` from row dictionaries.

    Raises:
        StageError: a row has a field that is not in the schema, or lacks one that is.
    """
    schema = TABLES[name]
    expected = set(schema.names)
    for row in rows:
        if set(row) != expected:
            raise StageError(
                "row fields do not match the schema",
                field=f"table {name}",
                value=sorted(set(row) ^ expected),
                remedy="Write exactly the fields of ospo_core.schema.TABLES",
            )
    return pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
