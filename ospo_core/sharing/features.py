"""Columns as the library `datasets` describes them, in a Parquet file and in the card of a dataset.

Own code because `datasets`, which is only needed to read what is written here, would be one more dependency of every
round. Pictures are structs of `bytes` and `path`, which its feature `Image` decodes.
"""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""Type of a column of pictures."""

_NAMES = {pa.string(): "string", pa.bool_(): "bool", pa.float64(): "float64", pa.float32(): "float32"}
_NAMES |= {pa.int32(): "int32", pa.int64(): "int64", pa.uint16(): "uint16", pa.uint64(): "uint64"}


def with_features(schema: pa.Schema) -> pa.Schema:
    """Return the schema with the metadata from which `datasets` knows its features."""
    features = {field.name: _feature(field.type) for field in schema}
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def features_of_card(schema: pa.Schema) -> list[dict[str, Any]]:
    """Return the features as `dataset_info` of a dataset's card lists them."""
    return [{"name": field.name, **_in_card(field.type)} for field in schema]


def _feature(kind: pa.DataType) -> Any:
    """Return a type as the JSON form of a feature; `[x]` is a list in every version of `datasets`."""
    if kind == IMAGE:
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return [_feature(kind.value_type)]
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    return {"dtype": _NAMES[kind], "_type": "Value"}


def _in_card(kind: pa.DataType) -> dict[str, Any]:
    """Return a type as the card has it."""
    if kind == IMAGE:
        return {"dtype": "image"}
    if pa.types.is_list(kind):
        value = _in_card(kind.value_type)
        return {"list": value.get("dtype") or value.get("struct") or value}
    if pa.types.is_struct(kind):
        return {"struct": features_of_card(pa.schema(list(kind)))}
    return {"dtype": _NAMES[kind]}
