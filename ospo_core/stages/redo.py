"""Doing a stage over: a new attempt beside the published one, of the whole stage or of chosen items only."""

from __future__ import annotations

import polars as pl
import pyarrow as pa
from pydantic import Field

from ospo_core.config.sections import Section
from ospo_core.errors import ConfigError


class RedoRequest(Section):
    """What is to be done over.

    Args:
        where: condition over the columns of the prompts table, in SQL, e.g. `category = 'layout'`; empty is all items.
        overrides: `section.option=value` that hold for this stage only.
    """

    where: str = ""
    overrides: tuple[str, ...] = ()


class Redo(RedoRequest):
    """One attempt at doing a stage over; it is part of the fingerprint, so that nothing published is overwritten.

    Args:
        attempt: 1 is the first after the ordinary result.
        of: with `where`, fingerprint of the result whose other rows are kept.
    """

    attempt: int = Field(ge=1)
    of: str = ""


def chosen_items(prompts: pa.Table, where: str) -> frozenset[str]:
    """Return the `item_id` of the prompts that satisfy a condition.

    Args:
        prompts: rows of the prompts table.
        where: a condition in SQL over its columns.

    Raises:
        ConfigError: it cannot be read, names an unknown column, or is no condition.
    """
    try:
        found = pl.DataFrame(prompts).filter(pl.sql_expr(where))
    except pl.exceptions.PolarsError as error:
        raise ConfigError(
            f"is not a condition over the prompts table: {str(error).splitlines()[0]}",
            field="where",
            value=where,
            remedy=f"Write SQL over {', '.join(prompts.column_names)}, e.g. \"category = 'layout'\"",
        ) from error
    return frozenset(found["item_id"].to_list())
