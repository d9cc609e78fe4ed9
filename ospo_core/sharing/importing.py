"""Import of preference pairs: rows are checked one by one, pictures become image tokens of the model.

Image tokens that come with a row are kept if they were sampled by this model or a relative of it (training changes the
language model only, so all of a lineage share their codes); encoding a picture again would give other tokens
(docs/method.md, trap 1). Everything else is encoded. Rejected rows are written beside the import, with the reason.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ospo_core.artifacts.ids import item_id
from ospo_core.artifacts.manifest import ShardEntry
from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.storage_errors import as_storage_error
from ospo_core.artifacts.tables import write_shard
from ospo_core.config.sections import StorageConfig
from ospo_core.errors import StageError
from ospo_core.schema import TABLES, category_of, table_from_rows
from ospo_core.sharing.imported import REJECTED, ImportedPairs, content_digest, folder_of, publish_import
from ospo_core.sharing.outside_pictures import decoded, picture_bytes
from ospo_core.sharing.rows import PAIRS
from ospo_core.sharing.sources import RawRow, Rejected, SourceRow, checked_row, find_sources, read_rows

if TYPE_CHECKING:
    from ospo_core.models.base import UnifiedModel

SIDES = ("chosen", "rejected")
_AT_ONCE = 32
_SHOWN = 3


@dataclass
class _Pair:
    """A row whose pictures were read."""

    row: SourceRow
    encoded: dict[str, bytes]
    pictures: dict[str, NDArray[np.uint8]]
    tokens: dict[str, list[int]] = field(default_factory=dict)
    was_encoded: bool = False


@dataclass
class _Account:
    """What became of the rows so far."""

    rejected: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    without_negative: int = 0
    tokens_kept: int = 0
    seen: set[bytes] = field(default_factory=set)


def import_pairs(
    source: Path, storage: Storage, model: UnifiedModel, relatives: Collection[str], config: StorageConfig
) -> ImportedPairs:
    """Import the pairs of a source into the storage, and return the manifest of the import.

    Args:
        source: see `ospo_core.sharing.sources`.
        storage: where to put them.
        model: encodes the pictures.
        relatives: digests of the models whose image tokens are those of `model`, itself included.
        config: says how many rows a shard has, and where the import is put together.

    Raises:
        ConfigError: there is no such source.
        StageError: not one row can be used; the reasons are listed.
        StorageError: the source cannot be read, or the storage cannot be written.
    """
    files = find_sources(source)
    folder = (source if source.is_dir() else source.parent).resolve()
    account, scratch = _Account(), Path(config.scratch).expanduser()
    with as_storage_error("write", str(scratch)):
        scratch.mkdir(parents=True, exist_ok=True)
        place = tempfile.TemporaryDirectory(prefix="import-", dir=scratch)
    with place as temporary, as_storage_error("write", temporary):
        work = Storage(temporary)
        with (Path(temporary) / REJECTED).open("w", encoding="utf-8") as refused:
            pairs = _pairs(read_rows(files), folder, model, relatives, account, refused)
            shards = tuple(_shards(work, pairs, model, config.shard_size))
        if not shards:
            raise StageError(
                "not one of the rows can be used",
                field=str(source),
                value=dict(account.rejected),
                remedy="; ".join(account.examples) or "The file has no rows",
            )
        digest = content_digest(shards)
        storage.put_folder(Path(temporary), folder_of(digest))
    found = ImportedPairs(
        digest=digest,
        model=model.digest,
        family=model.family.name,
        shards=shards,
        rows=sum(entry.rows for entry in shards),
        without_negative=account.without_negative,
        tokens_kept=account.tokens_kept,
        rejected=dict(sorted(account.rejected.items())),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    publish_import(storage, found)
    return found


def _pairs(
    rows: Iterator[RawRow],
    folder: Path,
    model: UnifiedModel,
    relatives: Collection[str],
    account: _Account,
    refused: Any,
) -> Iterator[_Pair]:
    """Yield the rows that can be used; note the others."""
    for place, columns in rows:
        try:
            if isinstance(columns, Rejected):
                raise columns
            pair = _read(checked_row(columns), folder, model, relatives)
            _check_new(pair, account)
        except Rejected as problem:
            account.rejected[problem.reason] += 1
            if len(account.examples) < _SHOWN:
                account.examples.append(f"{place}: {problem.detail}")
            line = {"row": place, "reason": problem.reason, "detail": problem.detail}
            refused.write(json.dumps(line, ensure_ascii=False) + "\n")
            continue
        account.without_negative += pair.row.negative_prompt is None
        account.tokens_kept += bool(pair.tokens)
        yield pair


def _read(row: SourceRow, folder: Path, model: UnifiedModel, relatives: Collection[str]) -> _Pair:
    """Return a row with its pictures, of the model's size, and the tokens that may be kept.

    Raises:
        Rejected: a picture or the tokens cannot be used.
    """
    pair = _Pair(row, {}, {})
    for side in SIDES:
        data = picture_bytes(getattr(row, side), folder)
        pair.encoded[side], pair.pictures[side] = _fitted(data, model)
    given = {side: getattr(row, f"{side}_tokens") for side in SIDES}
    if row.tokens_model in relatives and all(given.values()):
        for side, tokens in given.items():
            _check_tokens(side, tokens, getattr(row, f"{side}_mask"), model)
        pair.tokens = given
        return pair
    if np.array_equal(pair.pictures["chosen"], pair.pictures["rejected"]):
        raise Rejected("equal_pictures", "chosen and rejected are the same picture")
    return pair


def _fitted(data: bytes, model: UnifiedModel) -> tuple[bytes, NDArray[np.uint8]]:
    """Return a picture at the model's size, encoded and decoded; bytes that are so already are left as they are."""
    from ospo_core.models.pictures import encode_png, resized

    picture, plain = decoded(data)
    fitted = resized(picture, model.geometry.height, model.geometry.width)
    return (data if plain and fitted is picture else encode_png(fitted)), fitted


def _check_tokens(side: str, tokens: Sequence[int], mask: Sequence[float] | None, model: UnifiedModel) -> None:
    count, codes = model.geometry.tokens, model.geometry.codes
    if len(tokens) != count or max(tokens) >= codes:
        raise Rejected("invalid_tokens", f"{side}_tokens are not {count} codes below {codes}")
    if mask is not None and len(mask) != count:
        raise Rejected("invalid_tokens", f"{side}_mask is not one weight for each of {count} tokens")


def _check_new(pair: _Pair, account: _Account) -> None:
    """Refuse a pair that an earlier row had."""
    texts = json.dumps([pair.row.prompt, pair.row.negative_prompt]).encode()
    key = hashlib.sha256(texts)
    for side in SIDES:
        key.update(hashlib.sha256(pair.encoded[side]).digest())
        key.update(np.array(pair.tokens.get(side, ()), dtype=np.uint16).tobytes())
    if key.digest() in account.seen:
        raise Rejected("duplicate", "an earlier row has the same prompts and pictures")
    account.seen.add(key.digest())


def _shards(work: Storage, pairs: Iterator[_Pair], model: UnifiedModel, shard_size: int) -> Iterator[ShardEntry]:
    """Write the pairs, `shard_size` in a shard, and yield the entries."""
    rows: list[dict[str, Any]] = []
    waiting: list[_Pair] = []
    number = 0

    def written(size: int) -> ShardEntry:
        table = table_from_rows(PAIRS, rows[:size])
        del rows[:size]
        return write_shard(work, f"part-{number:05d}.parquet", table)

    for pair in pairs:
        waiting.append(pair)
        if len(waiting) == _AT_ONCE:
            rows += _encoded(waiting, model)
            waiting = []
        while len(rows) >= shard_size:
            yield written(shard_size)
            number += 1
    rows += _encoded(waiting, model)
    while rows:
        yield written(shard_size)
        number += 1


def _encoded(pairs: Sequence[_Pair], model: UnifiedModel) -> list[dict[str, Any]]:
    """Return rows of the table `pairs`; pictures without tokens are encoded together."""
    from ospo_core.models.pictures import encode_pictures, to_pixels

    missing = [pair for pair in pairs if not pair.tokens]
    if missing:
        pictures = np.stack([pair.pictures[side] for pair in missing for side in SIDES])
        tokens = encode_pictures(model, to_pixels(pictures)).reshape(len(missing), len(SIDES), -1).tolist()
        for pair, codes in zip(missing, tokens, strict=True):
            pair.tokens, pair.was_encoded = dict(zip(SIDES, codes, strict=True)), True
    return [_row(pair) for pair in pairs]


def _row(pair: _Pair) -> dict[str, Any]:
    """Return a row of the table `pairs`; object masks belong to tokens, so new tokens have none."""
    given = pair.row.model_dump(mode="json", include=set(TABLES[PAIRS].names))
    category = pair.row.category or (pair.row.sub_category and category_of(pair.row.sub_category))
    row: dict[str, Any] = {**dict.fromkeys(TABLES[PAIRS].names), **given, "category": category and category.value}
    for side in SIDES:
        row[f"{side}_tokens"] = pair.tokens[side]
        row[f"{side}_image"] = {"bytes": pair.encoded[side], "path": _name(getattr(pair.row, side))}
        if pair.was_encoded:
            row[f"{side}_mask"] = None
    digests = [hashlib.sha256(pair.encoded[side]).hexdigest() for side in SIDES]
    row["item_id"] = row["item_id"] or item_id("imported", pair.row.prompt, pair.row.negative_prompt or "", *digests)
    return row


def _name(picture: Any) -> str | None:
    return picture if isinstance(picture, str) else picture.path
