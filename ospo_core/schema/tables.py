"""The stages of a round and one pyarrow schema per table, all under one schema version.

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
    "metrics": pa.schema(
        [
            ("step", pa.int64()),
            ("name", pa.string()),
            ("value", pa.float64()),
        ]
    ),
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
            ("vqa_score", pa.float64()),
            ("vqa_correct", pa.bool_()),
            ("oracle_correct", pa.bool_()),
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
