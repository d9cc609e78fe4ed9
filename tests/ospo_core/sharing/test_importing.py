"""Pairs from outside: every row is used or rejected with a reason, and what was exported comes back as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from ospo_core.artifacts.storage import Storage
from ospo_core.artifacts.tables import read_entry, read_table
from ospo_core.config.sections import StorageConfig
from ospo_core.errors import ConfigError, DamagedArtifactError, StageError
from ospo_core.models.janus.model import JanusModel
from ospo_core.models.pictures import encode_pictures, to_pixels
from ospo_core.schema import StageName
from ospo_core.sharing.dataset import export_dataset
from ospo_core.sharing.imported import REJECTED, ImportedPairs, load_import
from ospo_core.sharing.importing import import_pairs
from tests.support.preference_pairs import encoded, pixels, provenance, publish_pairs

GOOD = {"prompt": "a red circle", "negative_prompt": "a blue circle", "chosen": "a.png", "rejected": "b.jpg"}


class Import:
    """Imports into a storage of its own, and looks at what came out."""

    def __init__(self, root: Path, model: JanusModel) -> None:
        self.storage, self.model = Storage(str(root / "store")), model
        self.config = StorageConfig(root=str(root / "store"), scratch=str(root / "scratch"), shard_size=4)

    def __call__(self, source: Path) -> ImportedPairs:
        found = import_pairs(source, self.storage, self.model, {self.model.digest}, self.config)
        assert load_import(self.storage, found.digest) == found
        assert list(Path(self.config.scratch).iterdir()) == []
        return found

    def table(self, found: ImportedPairs) -> pa.Table:
        return pa.concat_tables(read_entry(self.storage, found.prefix, entry) for entry in found.shards)

    def rejected(self, found: ImportedPairs) -> list[dict[str, str]]:
        text = self.storage.read(f"{found.prefix}/{REJECTED}").decode()
        return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def run(tmp_path: Path, tiny: JanusModel) -> Import:
    return Import(tmp_path, tiny)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with pictures, and one outside it."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "a.png").write_bytes(encoded(1))
    (folder / "b.jpg").write_bytes(encoded(2, "JPEG", 50, 70))
    (folder / "c.webp").write_bytes(encoded(3, "WEBP"))
    (folder / "text.png").write_text("no picture")
    (folder / "cut.png").write_bytes(encoded(1)[:-200])
    (folder / "gif.png").write_bytes(encoded(1, "GIF"))
    (tmp_path / "outside.png").write_bytes(encoded(4))
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "loop.png").symlink_to("loop.png")
    return folder


def lines(folder: Path, *rows: object) -> Path:
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    (folder / "pairs.jsonl").write_text(text + "\n", encoding="utf-8")
    return folder


def exported(storage: Storage, out: Path, model: str, **changes: Any) -> pa.Table:
    """Export pairs and return their table."""
    manifests = publish_pairs(storage, **changes)
    export_dataset(storage, manifests, out, [], provenance(model))
    return read_table(storage, manifests[StageName.PAIRS])


def test_exported_pairs_come_back_in_their_order_to_the_last_byte(run: Import, tmp_path: Path) -> None:
    pairs = exported(run.storage, tmp_path / "out", run.model.digest)
    found = run(tmp_path / "out")
    assert run.table(found).equals(pairs)
    assert (found.rows, found.tokens_kept, found.rejected, found.model) == (9, 9, {}, run.model.digest)
    assert [entry.rows for entry in found.shards] == [4, 4, 1]


def test_the_same_pairs_have_the_same_digest(run: Import, tmp_path: Path) -> None:
    exported(run.storage, tmp_path / "out", run.model.digest)
    first, again = run(tmp_path / "out"), run(tmp_path / "out")
    assert first.digest == again.digest
    assert run.table(again).num_rows == 9


def test_tokens_of_another_model_are_not_kept(run: Import, tmp_path: Path) -> None:
    exported(run.storage, tmp_path / "out", "e" * 64)
    found = run(tmp_path / "out")
    assert found.tokens_kept == 0
    table = run.table(found)
    wanted = encode_pictures(run.model, to_pixels(np.stack([pixels(2 * number) for number in range(9)])))
    assert table["chosen_tokens"].to_pylist() == wanted.tolist()
    assert table["chosen_mask"].null_count == 9


def test_a_dataset_that_was_filtered_and_saved_by_datasets_is_read(run: Import, tmp_path: Path) -> None:
    exported(run.storage, tmp_path / "out", run.model.digest)
    data = load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))["layout"]
    (tmp_path / "kept").mkdir()
    data.filter(lambda row: row["position"] != 4).to_parquet(str(tmp_path / "kept" / "layout.parquet"))
    found = run(tmp_path / "kept")
    assert (found.rows, found.tokens_kept) == (2, 2)
    assert run.table(found)["item_id"].to_pylist() == ["item-0001", "item-0007"]


def test_pictures_of_a_folder_are_fitted_and_encoded(run: Import, pictures: Path) -> None:
    plain = {"prompt": "three stars", "chosen": "c.webp", "rejected": "a.png"}
    found = run(lines(pictures, GOOD, plain))
    rows = run.table(found).to_pylist()
    assert found.without_negative == 1 and rows[1]["negative_prompt"] is None
    assert rows[0]["chosen_image"] == {"bytes": encoded(1), "path": "a.png"}
    assert rows[0]["chosen_tokens"] == encode_pictures(run.model, to_pixels(pixels(1)[None]))[0].tolist()
    assert len(rows[0]["rejected_tokens"]) == run.model.geometry.tokens
    assert rows[0]["item_id"] != rows[1]["item_id"] and rows[0]["category"] is None


def test_a_category_follows_from_the_sub_category(run: Import, pictures: Path) -> None:
    found = run(lines(pictures, {**GOOD, "sub_category": "spatial_2d"}))
    assert run.table(found)["category"].to_pylist() == ["layout"]


@pytest.mark.parametrize(
    ("row", "reason", "word"),
    [
        ("{", "not_json", "Expecting"),
        ("[1]", "not_json", "object"),
        ("[" * 100_000, "not_json", ""),
        ('{"prompt": "' + "x" * 2**20 + '"}', "not_json", "longer"),
        ({**GOOD, "prompt": "  "}, "invalid_column", "prompt"),
        ({**GOOD, "prompt": 3}, "invalid_column", "prompt"),
        ({**GOOD, "prompt": "x" * 5000}, "invalid_column", "prompt"),
        ('{"prompt": "\\ud800", "chosen": "a.png", "rejected": "b.jpg"}', "invalid_column", "prompt"),
        ({**GOOD, "chosen": None}, "invalid_column", "chosen"),
        ({**GOOD, "category": "animals"}, "invalid_column", "category"),
        ({**GOOD, "negative_prompt": "a red circle"}, "equal_prompts", "negative_prompt"),
        ({**GOOD, "chosen": "nowhere.png"}, "picture_missing", "nowhere.png"),
        ({**GOOD, "chosen": ""}, "picture_missing", ""),
        ({**GOOD, "chosen": "."}, "picture_missing", ""),
        ({**GOOD, "chosen": "a\0.png"}, "picture_missing", ""),
        ({**GOOD, "chosen": "x" * 5000}, "picture_missing", ""),
        ({**GOOD, "chosen": "loop.png"}, "picture_missing", ""),
        ({**GOOD, "chosen": "../outside.png"}, "picture_outside", "outside"),
        ({**GOOD, "chosen": "/etc/passwd"}, "picture_outside", "passwd"),
        ({**GOOD, "chosen": "link.png"}, "picture_outside", "link.png"),
        ({**GOOD, "chosen": "text.png"}, "picture_unreadable", "PNG"),
        ({**GOOD, "chosen": "cut.png"}, "picture_unreadable", "PNG"),
        ({**GOOD, "chosen": "gif.png"}, "picture_unreadable", "PNG"),
        ({**GOOD, "rejected": "a.png"}, "equal_pictures", "same picture"),
        (GOOD, "duplicate", "earlier row"),
    ],
)
def test_a_row_that_cannot_be_used_is_rejected_with_its_reason(
    run: Import, pictures: Path, row: object, reason: str, word: str
) -> None:
    found = run(lines(pictures, GOOD, row, {**GOOD, "prompt": "the last"}))
    assert found.rows == 2 and found.rejected == {reason: 1}
    (line,) = run.rejected(found)
    assert line["row"] == "pairs.jsonl:2" and line["reason"] == reason and word in line["detail"]


@pytest.mark.parametrize("limit", ["MOST_BYTES", "MOST_PIXELS"])
def test_pictures_are_bounded_before_they_are_decoded(
    run: Import, pictures: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(f"ospo_core.sharing.outside_pictures.{limit}", 1000)
    with pytest.raises(StageError, match="picture_too_large"):
        run(lines(pictures, GOOD))


@pytest.mark.parametrize("change", [{"chosen_tokens": [1, 2]}, {"rejected_tokens": [48] * 16}, {"chosen_mask": [0.5]}])
def test_tokens_that_the_model_cannot_have_written_are_rejected(
    run: Import, tmp_path: Path, change: dict[str, Any]
) -> None:
    exported(run.storage, tmp_path / "out", run.model.digest, **change)
    with pytest.raises(StageError, match="'invalid_tokens': 9"):
        run(tmp_path / "out")


def test_nothing_is_stored_if_no_row_can_be_used(run: Import, pictures: Path) -> None:
    with pytest.raises(StageError, match=r"not_json.*pairs\.jsonl:1") as raised:
        run(lines(pictures, "{"))
    assert raised.value.exit_code == 1
    assert run.storage.list() == [] and list(Path(run.config.scratch).iterdir()) == []


def test_a_source_that_is_none_is_refused(run: Import, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "pairs.csv").write_text("prompt\n")
    for name in ("nowhere", "empty", "pairs.csv"):
        with pytest.raises(ConfigError, match="source"):
            run(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "word"), [(b"no Parquet", "is not Parquet"), (None, "lacks the columns chosen, rejected")]
)
def test_a_parquet_file_that_has_no_pairs_is_refused(
    run: Import, tmp_path: Path, content: bytes | None, word: str
) -> None:
    path = tmp_path / "pairs.parquet"
    pq.write_table(pa.table({"prompt": ["a"], "jpg_0": [b"x"]}), path)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=word):
        run(path)


def test_an_import_that_is_missing_or_damaged_is_named(run: Import, pictures: Path) -> None:
    found = run(lines(pictures, GOOD))
    for digest in ("0" * 64, "../../x"):
        with pytest.raises(ConfigError, match="import-pairs"):
            load_import(run.storage, digest)
    key = f"{found.prefix}/manifest.json"
    run.storage.write(key, run.storage.read(key).replace(b'"rows": 1', b'"rows": 2'))
    with pytest.raises(DamagedArtifactError, match=r"manifest\.json"):
        load_import(run.storage, found.digest)


def test_a_row_of_parquet_that_python_cannot_hold_is_rejected_alone(run: Import, pictures: Path) -> None:
    names = pa.array(["a.png"] * 3)
    offsets, data = np.array([0, 2, 4, 5], dtype=np.int32), b"ab\xff\xfed"
    prompts = pa.Array.from_buffers(pa.string(), 3, [None, pa.py_buffer(offsets.tobytes()), pa.py_buffer(data)])
    table = pa.table({"prompt": prompts, "chosen": names, "rejected": ["b.jpg"] * 3})
    pq.write_table(table, pictures / "pairs.parquet")
    found = run(pictures)
    assert run.table(found)["prompt"].to_pylist() == ["ab", "d"] and found.rejected == {"invalid_column": 1}
    assert run.rejected(found)[0]["row"] == "pairs.parquet:2"


def test_names_of_files_are_relative_to_the_folder_that_was_named(run: Import, pictures: Path) -> None:
    (pictures / "data").mkdir()
    table = pa.table({"prompt": ["a circle"], "chosen": ["a.png"], "rejected": ["b.jpg"]})
    pq.write_table(table, pictures / "data" / "train-00000-of-00001.parquet")
    assert run(pictures).rows == 1
