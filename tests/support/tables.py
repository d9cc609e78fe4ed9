"""Small tables to publish."""

from __future__ import annotations

import pyarrow as pa

from ospo_core.schema import table_from_rows


def question_table(start: int, rows: int) -> pa.Table:
    """Return a table of questions with ids `item-<start>` and on."""
    return table_from_rows(
        "questions",
        [
            {"item_id": f"item-{number}", "of": "base", "prompt": "a red circle", "questions": ["is it red ?"]}
            for number in range(start, start + rows)
        ],
    )
