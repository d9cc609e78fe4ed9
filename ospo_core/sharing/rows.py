"""The rows of a round's tables as others read them.

- Pairs: `prompt`, and `chosen` and `rejected` as pictures, the names that preference data has everywhere; then the
  columns of the table `pairs`. `position` is the place of a pair in the round, and `tokens_model` the digest of the
  model whose image tokens `chosen_tokens` and `rejected_tokens` are.
- TRL: its preference format of vision-language models. A trainer of TRL learns to write text, so a row holds the
  preference between two texts of one picture: the chosen picture, its prompt, and the perturbed prompt.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from ospo_core.schema import TABLES
from ospo_core.sharing import Part
from ospo_core.sharing.features import IMAGE

PAIRS = "pairs"
"""Name of the configuration of the pairs, which is the default one."""
POSITION, TOKENS_MODEL, SPLIT = "position", "tokens_model", "category"
PICTURES = {"chosen_image": "chosen", "rejected_image": "rejected"}
"""Columns of the table `pairs` and their names outside."""
QUESTION = "What does this picture show?"
"""What the user says in a row for TRL."""

_CONTENT = pa.list_(pa.struct([("type", pa.string()), ("text", pa.string())]))
_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", _CONTENT)]))
_TRL = pa.schema(
    [
        ("images", pa.list_(IMAGE)),
        ("prompt", _MESSAGES),
        ("chosen", _MESSAGES),
        ("rejected", _MESSAGES),
        ("item_id", pa.string()),
    ]
)
_PAIRS = pa.schema(
    [
        pa.field(POSITION, pa.int64()),
        *(field.with_name(PICTURES.get(field.name, field.name)) for field in TABLES["pairs"]),
        pa.field(TOKENS_MODEL, pa.string()),
    ]
)


def schema_of(name: str) -> pa.Schema:
    """Return the columns of a configuration of the dataset."""
    if name == PAIRS:
        return _PAIRS
    if name == Part.TRL:
        return _TRL
    table = TABLES[name]
    return table if SPLIT in table.names else table.append(pa.field(SPLIT, pa.string()))


def shared_pairs(pairs: pa.Table, first: int, model: str) -> pa.Table:
    """Return a shard of the table `pairs`, whose first row is number `first` of the round, as it is exported."""
    count = len(pairs)
    columns = [
        pa.array(range(first, first + count), pa.int64()),
        *pairs.columns,
        pa.array([model] * count, pa.string()),
    ]
    return pa.table(columns, schema=_PAIRS)


def trl_rows(pairs: pa.Table) -> pa.Table:
    """Return the rows for TRL of a shard of the table `pairs`; pairs without a perturbed prompt have none."""
    rows = pairs.filter(pc.is_valid(pairs["negative_prompt"]))
    columns = rows.select(["item_id", "prompt", "negative_prompt", "chosen_image"]).to_pylist()
    asked = [{"role": "user", "content": [_part("image", None), _part("text", QUESTION)]}]
    return pa.Table.from_pylist(
        [
            {
                "images": [row["chosen_image"]],
                "prompt": asked,
                "chosen": _answer(row["prompt"]),
                "rejected": _answer(row["negative_prompt"]),
                "item_id": row["item_id"],
            }
            for row in columns
        ],
        schema=_TRL,
    )


def with_category(table: pa.Table, categories: Mapping[str, str]) -> pa.Table:
    """Return a table with the category of each item, which it may have already."""
    if SPLIT in table.column_names:
        return table
    found = [categories.get(item) for item in table["item_id"].to_pylist()]
    return table.append_column(SPLIT, pa.array(found, pa.string()))


def _answer(text: str) -> list[dict[str, object]]:
    return [{"role": "assistant", "content": [_part("text", text)]}]


def _part(kind: str, text: str | None) -> dict[str, str | None]:
    return {"type": kind, "text": text}
