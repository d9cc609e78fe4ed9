"""Preference pairs of others: where they are, and row by row what they say.

A source is a file of JSON lines or Parquet, or a folder with such files: `data/*.parquet` or `*.parquet` (a dataset of
Hugging Face, e.g. an exported one), else `*.jsonl`. Nothing is trusted: lines and pictures are bounded, file names stay
in the folder, and a row that cannot be used is a `Rejected` with its reason.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ospo_core.artifacts.storage_errors import as_storage_error
from ospo_core.errors import ConfigError
from ospo_core.schema import Category, PerturbationKind, Side, SubCategory
from ospo_core.sharing.rows import POSITION

LONGEST_LINE = 2**20
LONGEST_PROMPT = 4000
_ROWS_AT_ONCE = 32

Text = Annotated[str, Field(pattern=r"\S", max_length=LONGEST_PROMPT)]
Token = Annotated[int, Field(ge=0, lt=2**16)]


class _Outside(BaseModel):
    """Base of what comes from outside: unknown columns are ignored, numbers are finite."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class SourcePicture(_Outside):
    """A picture: its encoded bytes, or the name of a file beside the rows."""

    data: Annotated[bytes | None, Field(alias="bytes")] = None
    path: str | None = None


class SourceAnswer(_Outside):
    """An answer about a picture."""

    question: str
    p_yes: float
    p_no: float


class SourceRow(_Outside):
    """A preference pair from outside: a prompt and two pictures; the rest is optional, as in the table `pairs`."""

    prompt: Text
    negative_prompt: Text | None = None
    chosen: SourcePicture | str
    rejected: SourcePicture | str
    item_id: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    category: Category | None = None
    sub_category: SubCategory | None = None
    negative_kind: PerturbationKind | None = None
    chosen_variant: int | None = None
    chosen_side: Side | None = None
    rejected_variant: int | None = None
    rejected_side: Side | None = None
    chosen_tokens: list[Token] | None = None
    rejected_tokens: list[Token] | None = None
    tokens_model: str | None = None
    chosen_answers: list[SourceAnswer] | None = None
    rejected_answers: list[SourceAnswer] | None = None
    chosen_score: float | None = None
    rejected_score: float | None = None
    image_logprob_gap: float | None = None
    text_logprob_gap: float | None = None
    rule: Annotated[str, Field(max_length=128)] | None = None
    chosen_mask: list[float] | None = None
    rejected_mask: list[float] | None = None


class Rejected(Exception):
    """A row that cannot be used; `reason` is what it is counted under."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason, self.detail = reason, detail
        super().__init__(detail)


RawRow = tuple[str, dict[str, Any] | Rejected]
"""Where a row is (`pairs.jsonl:3`), and its columns, or why they cannot be read."""


def find_sources(source: Path) -> list[Path]:
    """Return the files of a source, sorted; all are of one kind.

    Raises:
        ConfigError: there is no such file or folder, or no rows in it.
        StorageError: it cannot be read.
    """
    with as_storage_error("look at", str(source)):
        if source.is_dir():
            for pattern in ("data/*.parquet", "*.parquet", "*.jsonl"):
                if found := sorted(path for path in source.glob(pattern) if path.is_file()):
                    return found
        elif source.is_file() and source.suffix in (".parquet", ".jsonl"):
            return [source]
        problem = "has no *.parquet and no *.jsonl" if source.is_dir() else "is no folder, and no such file"
    raise ConfigError(
        problem,
        field="source",
        value=str(source),
        remedy="Give a file of JSON lines (.jsonl) or Parquet, or a folder with one; of a folder written by "
        "`Dataset.save_to_disk`, write Parquet first (`Dataset.to_parquet`)",
    )


def read_rows(files: Sequence[Path]) -> Iterator[RawRow]:
    """Yield the rows of a source, in the order of their `position` if they have one, else of the files.

    Raises:
        ConfigError: a file is not what its name says, or has no column of prompts or pictures.
        StorageError: it cannot be read.
    """
    if files[0].suffix == ".jsonl":
        yield from chain.from_iterable(_lines(path) for path in files)
        return
    opened = [_opened(path) for path in files]
    batches = [_parquet_rows(path, file) for path, file in zip(files, opened, strict=True)]
    if all(POSITION in file.schema_arrow.names for file in opened):
        yield from heapq.merge(*batches, key=_position)
    else:
        yield from chain.from_iterable(batches)


def checked_row(columns: dict[str, Any]) -> SourceRow:
    """Return a row whose columns have the right types.

    Raises:
        Rejected: they have not.
    """
    try:
        row = SourceRow.model_validate(columns)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise Rejected("invalid_column", f"{place}: {first['msg']}") from None
    if row.negative_prompt == row.prompt:
        raise Rejected("equal_prompts", "negative_prompt is the prompt itself; leave it out if there is none")
    return row


def _lines(path: Path) -> Iterator[RawRow]:
    with as_storage_error("read", str(path)), path.open("rb") as stream:
        number = 0
        while line := stream.readline(LONGEST_LINE + 1):
            number += 1
            place, long = f"{path.name}:{number}", len(line) > LONGEST_LINE
            while long and not line.endswith(b"\n") and (line := stream.readline(LONGEST_LINE)):
                continue
            if long:
                yield place, Rejected("not_json", f"the line is longer than {LONGEST_LINE} bytes")
            elif line.strip():
                yield place, _object(line)


def _object(line: bytes) -> dict[str, Any] | Rejected:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Rejected("not_json", str(error))
    return found if isinstance(found, dict) else Rejected("not_json", "is not a JSON object")


def _opened(path: Path) -> pq.ParquetFile:
    with as_storage_error("read", str(path)):
        try:
            file = pq.ParquetFile(path, pre_buffer=False)  # it would keep the columns of all row groups
        except pa.ArrowException as error:
            raise ConfigError(f"is not Parquet: {error}", field=str(path), remedy="Correct the file") from None
    names = set(file.schema_arrow.names)
    if missing := sorted({"prompt", "chosen", "rejected"} - names):
        raise ConfigError(
            f"lacks the columns {', '.join(missing)}",
            field=str(path),
            value=sorted(names)[:20],
            remedy="Rename the columns: `prompt` (text), `chosen` and `rejected` (pictures, or names of files)",
        )
    return file


def _parquet_rows(path: Path, file: pq.ParquetFile) -> Iterator[RawRow]:
    wanted = [name for name in file.schema_arrow.names if name in {*SourceRow.model_fields, POSITION}]
    number = 0
    with as_storage_error("read", str(path)):
        try:
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=wanted):
                for row in _batch_rows(batch):
                    number += 1
                    yield f"{path.name}:{number}", row
        except pa.ArrowException as error:
            raise ConfigError(f"is damaged: {error}", field=str(path), remedy="Get the file again") from None


def _batch_rows(batch: pa.RecordBatch) -> list[dict[str, Any] | Rejected]:
    """Return the rows of a batch; one that Python cannot hold, such as text that is not UTF-8, is rejected."""
    try:
        rows: list[dict[str, Any] | Rejected] = batch.to_pylist()
        return rows
    except ValueError as error:
        if len(batch) == 1:
            return [Rejected("invalid_column", str(error))]
        return [row for index in range(len(batch)) for row in _batch_rows(batch.slice(index, 1))]


def _position(row: RawRow) -> int:
    place = row[1].get(POSITION) if isinstance(row[1], dict) else None
    return place if isinstance(place, int) else 2**63
