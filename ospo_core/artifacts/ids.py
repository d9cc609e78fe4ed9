"""Identities: canonical JSON, digests, item ids and seeds. The same input gives the same output on every machine.

Own code because neither `json` nor pydantic gives one text per value: sets, numpy scalars, key collisions, NaN.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import Enum
from pathlib import Path, PurePath
from typing import Annotated, Any, TypeAlias, cast

from pydantic import BaseModel, StringConstraints

from ospo_core.errors import OspoError

Plain: TypeAlias = "dict[str, Plain] | list[Plain] | str | int | float | bool | None"
"""What JSON can hold."""

Digest: TypeAlias = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
"""A sha256 as 64 hex digits: the field type of every digest that is read back, since folders are named after them."""


def canonical_json(obj: object) -> str:
    """Return `obj` as JSON with sorted keys and no spaces: equal values give equal text.

    It accepts JSON's own types, pydantic models, enums, paths, sets (sorted) and numpy scalars.

    Raises:
        OspoError: a value that JSON cannot hold exactly (not finite, bytes, another class); its place is named.
    """
    return json.dumps(plain(obj), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_of(obj: object) -> str:
    """Return the sha256 (64 hex digits) of the canonical JSON of `obj`."""
    return hashlib.sha256(canonical_json(obj).encode()).hexdigest()


def item_id(*parts: str) -> str:
    """Return the id (16 hex digits) of the item that `parts` identify; `("ab", "c")` differs from `("a", "bc")`."""
    return digest_of(list(parts))[:16]


def derive_seed(*parts: str | int) -> int:
    """Return a seed in [0, 2**63) from `parts`, e.g. (round seed, item id, variant); their order and types matter."""
    return int(digest_of(list(parts))[:16], 16) >> 1


def file_sha256(file: Path) -> str:
    """Return the sha256 (hex) of the bytes of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def plain(obj: object, place: str = "value") -> Plain:
    """Return `obj` as JSON types only; errors are those of `canonical_json` and name its `place`."""
    if isinstance(obj, Enum):
        return plain(obj.value, place)
    if obj is None or isinstance(obj, (bool, int, str)):
        return obj
    if isinstance(obj, float) and math.isfinite(obj):
        return float(obj)
    if isinstance(obj, BaseModel):
        return plain(obj.model_dump(), place)
    if isinstance(obj, Mapping):
        return _plain_mapping(obj, place)
    if isinstance(obj, AbstractSet):
        return sorted((plain(entry, place) for entry in obj), key=canonical_json)
    if isinstance(obj, Sequence) and not isinstance(obj, (bytes, bytearray)):
        return [plain(entry, f"{place}[{index}]") for index, entry in enumerate(obj)]
    if isinstance(obj, PurePath):
        return obj.as_posix()
    if getattr(obj, "ndim", None) == 0 and not isinstance(obj, float):  # a numpy scalar
        return plain(cast(Any, obj).item(), place)
    raise OspoError("has no canonical JSON form", field=place, value=obj, remedy="Use finite numbers, text and lists")


def _plain_mapping(obj: Mapping[Any, Any], place: str) -> dict[str, Plain]:
    """Return a mapping with text keys; raise OspoError if two keys become the same text."""
    result = {str(plain(key, place)): plain(entry, f"{place}.{key}") for key, entry in obj.items()}
    if len(result) != len(obj):
        raise OspoError("two keys have the same text", field=place, value=sorted(map(str, obj)))
    return result
